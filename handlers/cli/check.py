"""The command `fount check`: everything that must be right about a model before it is packed, run together.

The model runs in a child process, so torch is never loaded here.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import find_device, json_option, model_store_option, store_argument

if TYPE_CHECKING:
    from handlers.checks.process import CheckRequest
    from handlers.checks.report import Finding

__all__ = ["check"]

_SPINNER = "|/-\\"
_SPINS_AFTER_S = 0.5


@click.command()
@click.argument("name", metavar="NAME")
@model_store_option("Folder with one folder a model.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    show_envvar=True,
    help="Where the picture goes.  [default: check.png in the model's folder]",
)
@click.option("--no-record", is_flag=True, show_envvar=True, help="Do not write golden samples.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    envvar="FOUNT_WORKER_THREADS",
    show_envvar=True,
    help="Threads of one operation, as a worker will have.",
)
@click.option(
    "--device", default="cpu", show_default=True, show_envvar=True, help="Where to run: cpu, cuda, cuda:1, ..."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    show_envvar=True,
    help="Seconds that one check may take.",
)
@json_option("Print one JSON document instead.")
def check(
    name: str,
    model_store: Path,
    picture: Path | None,
    no_record: bool,
    threads: int,
    device: str,
    time_limit: float,
    as_json: bool,
) -> None:
    """Check the model NAME as a worker would run it, and record its golden samples.

    NAME is a folder of the model store, or a path to a model folder (./shapes-gan). Each failure says what to change;
    the exit code is then 1. The model's own code runs in a process of its own, without a server.

    \b
    Example:
      fount check digits-cvae
      fount check ./shapes-gan --picture shapes.png
      fount check my-gan --json > my-gan.json
    """  # noqa: D301 - \b is click's mark for lines to keep
    from handlers.cards.store import StoreError, find_folder
    from handlers.checks.process import CheckRequest
    from handlers.checks.report import finding_to_text, has_failed, report_to_json, verdict

    try:
        folder = find_folder(name, model_store)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    request = CheckRequest(
        folder=folder,
        picture=picture or folder / "check.png",
        record=not no_record,
        time_limit_s=time_limit,
        threads=threads,
        device=_read_device(device),
    )
    findings: list[Finding] = []
    for finding in _run(request):
        findings.append(finding)
        if not as_json:
            click.echo(finding_to_text(finding, getattr(sys.stdout, "encoding", None) or "utf-8"))
    next_command = _next_command(name, model_store)
    if as_json:
        click.echo(json.dumps(report_to_json(folder, findings, next_command), indent=2))
    else:
        click.echo(f"\n{verdict(folder.name, findings, next_command)}")
    if has_failed(findings):
        raise click.exceptions.Exit(1)


def _run(request: CheckRequest) -> Iterator[Finding]:
    """Return findings as they arrive, and show a spinner on a terminal."""
    from handlers.checks.process import Running, run_in_child

    watched = sys.stderr.isatty()
    for count, event in enumerate(run_in_child(request)):
        if isinstance(event, Running):
            if watched and event.seconds > _SPINS_AFTER_S:
                sign = _SPINNER[count % len(_SPINNER)]
                click.echo(f"\r{sign}  {event.check} ({event.seconds:.0f} s)\x1b[K", nl=False, err=True)
            continue
        if watched:
            click.echo("\r\x1b[K", nl=False, err=True)
        yield event


def _read_device(device: str) -> str:
    """Make sure that a device is there, without torch where it is the CPU."""
    if device != "cpu":
        find_device(device)
    return device


def _next_command(name: str, model_store: Path) -> str:
    store = "" if "/" in name else store_argument(model_store)
    return f"fount pack {shlex.quote(name)}{store}"
