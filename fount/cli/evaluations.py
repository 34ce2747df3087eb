"""`fount evaluations` and `fount evaluation`: list evaluations; show, watch, cancel or delete one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from fount.cli.connection import connected
from fount.cli.evaluation_summary import age, evaluation_lines, progress_percent, report_lines, verdicts
from fount.cli.evaluation_watch import WatchProgress, conclude, continuation, detach_on_interrupt, watch
from fount.cli.options import many, option, server_options
from fount.cli.output.reports import REPORT_FILE, check_report_paths, write_reports
from fount.cli.output.text import echo_result, plain, table
from fount.client.sync import Client
from fount.errors import NotFound
from fount.evaluation.request import State
from fount.evaluation.types import STATES, EvaluationInfo, evaluation_json

__all__ = ["evaluation", "evaluations"]

_MIN_PREFIX = 4  # characters of an id
_MAX_NAMED = 10


@click.command()
@many("--state", "states", type=click.Choice(list(STATES)), help="Only evaluations in this state. May be repeated.")
@option("--model", metavar="NAME", help="Only evaluations of this model.")
@server_options
def evaluations(states: tuple[str, ...], model: str | None, server: str, timeout_s: float, as_json: bool) -> None:
    """List your own evaluations, newest first.

    \b
    Example:
      fount evaluations
      fount evaluations --state queued --state running
      fount evaluations --model digits-cvae --json
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        found = client.evaluations(cast(Sequence[State], states), model)
    if not found and not as_json:
        is_unfiltered = not states and model is None
        click.echo("none yet: fount evaluate MODEL" if is_unfiltered else "none: fount evaluations lists all", err=True)
        return
    rows = [("EVALUATION", "MODEL", "REFERENCE", "COUNT", "STATE", "PROGRESS", "AGE", "VERDICTS")]
    for info in found:
        envelope, progress = info.envelope, progress_percent(info) or "-"
        what = f"{envelope.model.name}:{envelope.model.version}", envelope.dataset, f"{envelope.count:,}"
        rows.append((info.id, *what, info.state, progress, age(info.created), verdicts(info)))
    echo_result([evaluation_json(info) for info in found], table(rows), as_json=as_json)


@click.command()
@click.argument("id")
@click.option("--watch", "watches", is_flag=True, envvar="FOUNT_EVALUATION_WATCH", show_envvar=True, help="Wait until it has ended; exit codes are those of `fount evaluate`.")  # fmt: skip  # noqa: E501
@click.option("--cancel", is_flag=True, show_envvar=True, help="Cancel it.")
@click.option("--delete", is_flag=True, show_envvar=True, help="Delete it with its report.")
@many("--report", "reports", type=REPORT_FILE, metavar="FILE.html|FILE.json", help="Write the report to FILE. May be repeated.")  # fmt: skip  # noqa: E501
@server_options
# The options arrive by name, one a parameter.
def evaluation(
    id: str,
    watches: bool,
    cancel: bool,
    delete: bool,
    reports: tuple[Path, ...],
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show one of your own evaluations, wait for it, cancel it, or delete it.

    ID is listed by `fount evaluations`; its first characters, 4 or more, are enough where they are unique.

    \b
    Example:
      fount evaluation 0199e2c4b --watch
      fount evaluation 0199e2c4b --report cvae.html --report cvae.json
      fount evaluation 0199e2c4b --cancel
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if watches + cancel + delete > 1 or (reports and (cancel or delete)):
        raise click.UsageError("Give one of --watch, --cancel and --delete; --report goes with --watch or alone")
    check_report_paths(reports)
    with detach_on_interrupt(server) as watched, connected(server, timeout_s) as client:
        info = _find(client, id)
        id = info.id
        if watches:
            watched.id = id
            with WatchProgress(quiet=as_json) as progress:
                info = watch(client, id, progress)
            watched.id = None
            conclude(client, info, reports, as_json=as_json)
        elif delete:
            client.delete_evaluation(id)
            echo_result({"id": id, "deleted": True}, [plain(f"Evaluation {id} is deleted.")], as_json=as_json)
        else:
            _show(client, client.cancel_evaluation(id) if cancel else info, reports, as_json=as_json)


def _find(client: Client, id: str) -> EvaluationInfo:
    """Look up an evaluation by its id, or a prefix of it; several ids with the prefix are a UsageError."""
    try:
        return client.evaluation(id)
    except NotFound:
        if len(id) < _MIN_PREFIX:
            raise
        found = [each.id for each in client.evaluations() if each.id.startswith(id)]
        if not found:
            raise
    if len(found) > 1:
        more = [f"and {len(found) - _MAX_NAMED} more"] if len(found) > _MAX_NAMED else []
        names = "".join(f"\n  {plain(each)}" for each in (*found[:_MAX_NAMED], *more))
        raise click.UsageError(f"{len(found)} evaluations begin with {id!r}; give more characters of one:{names}")
    return client.evaluation(found[0])


def _show(client: Client, info: EvaluationInfo, reports: Sequence[Path], *, as_json: bool) -> None:
    written = write_reports(client, info.id, reports)
    commands = [] if info.is_over else ["", continuation(client.server, info.id)]
    lines = (*evaluation_lines(info), *report_lines(written), *commands)
    echo_result({**evaluation_json(info), "reports": written}, lines, as_json=as_json)
