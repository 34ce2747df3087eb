"""The command `fount check`: every check of a model before it is packed.

The model runs in a child process, so torch is never imported here.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fount.cli.output.text import output_is_unicode
from handlers.cli.options import (
    FILE,
    THREADS,
    find_device,
    find_model,
    json_option,
    model_store_option,
    option,
    store_argument,
    worker_env_option,
)

if TYPE_CHECKING:
    from handlers.checks.process import CheckRequest
    from handlers.checks.report import Finding

__all__ = ["check"]

_SPINNER = "|/-\\"
_SPINNER_AFTER_S = 0.5


@click.command()
@click.argument("name", metavar="NAME")
@model_store_option("Folder with one folder for each model.")
@option("--picture", type=FILE, help="File for the picture of samples.  [default: check.png in the model's folder]")
@option("--no-record", is_flag=True, help="Do not write golden samples.")
@option("--threads", type=THREADS, default=1, envvar="FOUNT_WORKER_THREADS",
        help="Threads of one operation, as in a worker.")  # fmt: skip
@option("--device", default="cpu", help="Device to run on: cpu, cuda, cuda:1, ...")
@option("--modes", is_flag=True,
        help="Compare eager, folded, compiled and TorchScript: milliseconds, and where rows are equal.")  # fmt: skip
@option("--time-limit", type=click.FloatRange(min=1), default=300, help="Maximum seconds of one check.")
@worker_env_option
@json_option("Print one JSON document instead of text.")
def check(
    name: str,
    model_store: Path,
    picture: Path | None,
    no_record: bool,
    threads: int,
    device: str,
    modes: bool,
    time_limit: float,
    worker_env: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the model NAME as a worker would run it, and record its golden samples.

    NAME is a folder of the model store, or a path to a model folder (./shapes-gan). Each failure says what to change;
    the exit code is then 1. The model's own code runs in a separate process, without a server.

    \b
    Example:
      fount check digits-cvae
      fount check ./shapes-gan --picture shapes.png
      fount check my-gan --json > my-gan.json
    """  # noqa: D301 - \b makes click keep the lines
    from handlers.checks.process import CheckRequest
    from handlers.checks.report import finding_to_text, has_failed, report_to_json, verdict

    folder = find_model(name, model_store)
    if device != "cpu":  # the CPU is known to exist without importing torch
        find_device(device)
    request = CheckRequest(
        folder=folder,
        picture=picture or folder / "check.png",
        record=not no_record,
        time_limit_s=time_limit,
        modes=modes,
        threads=threads,
        device=device,
        worker_env=worker_env,
    )
    findings: list[Finding] = []
    for finding in _run(request):
        findings.append(finding)
        if not as_json:
            click.echo(finding_to_text(finding, unicode=output_is_unicode()))
    next_command = f"fount pack {shlex.quote(name)}{'' if '/' in name else store_argument(model_store)}"
    if as_json:
        click.echo(json.dumps(report_to_json(folder, findings, next_command), indent=2))
    else:
        click.echo(f"\n{verdict(folder.name, findings, next_command)}")
    if has_failed(findings):
        raise click.exceptions.Exit(1)


def _run(request: CheckRequest) -> Iterator[Finding]:
    """Yield findings as they arrive; show a spinner in between on a terminal."""
    from handlers.checks.process import Running, run_in_child

    is_terminal = sys.stderr.isatty()
    for count, event in enumerate(run_in_child(request)):
        if isinstance(event, Running):
            if is_terminal and event.seconds > _SPINNER_AFTER_S:
                sign = _SPINNER[count % len(_SPINNER)]
                click.echo(f"\r{sign}  {event.check} ({event.seconds:.0f} s)\x1b[K", nl=False, err=True)
            continue
        if is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
        yield event
