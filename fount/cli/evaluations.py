"""`fount evaluations` and `fount evaluation`: the evaluations there are, and one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from fount.cli.connection import connected
from fount.cli.evaluation_table import age, aligned, echo_evaluation, share_done, verdicts, written_lines
from fount.cli.evaluation_watch import conclude, detachable, how_to_go_on, watch, watch_progress
from fount.cli.options import echo_json, json_option, option, plain, server_option, timeout_option
from fount.cli.output.reports import REPORT_FILE, check_places, write_reports
from fount.client.sync import Client
from fount.errors import NotFound
from fount.evaluation.request import State
from fount.evaluation.types import STATES, EvaluationInfo, evaluation_json

__all__ = ["evaluation", "evaluations"]

_FEWEST_CHARACTERS = 4  # of the beginning of an id
_NAMED = 10


@click.command()
@click.option("--state", "states", type=click.Choice(list(STATES)), multiple=True, show_envvar=True, help="Only those in this state. May be repeated.")  # fmt: skip  # noqa: E501
@option("--model", metavar="NAME", help="Only those of this model.")
@server_option
@timeout_option
@json_option
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
    if as_json:
        echo_json([evaluation_json(info) for info in found])
        return
    if not found:
        is_of_all = not states and model is None
        click.echo("none yet: fount evaluate MODEL" if is_of_all else "none: fount evaluations lists all", err=True)
        return
    header = ("EVALUATION", "MODEL", "REFERENCE", "COUNT", "STATE", "PROGRESS", "AGE", "VERDICTS")
    for row in aligned([header, *map(_row, found)]):
        click.echo("  ".join(row).rstrip())


@click.command()
@click.argument("id")
@click.option("--watch", "watches", is_flag=True, envvar="FOUNT_EVALUATION_WATCH", show_envvar=True, help="Wait until it has ended; exit codes are those of `fount evaluate`.")  # fmt: skip  # noqa: E501
@click.option("--cancel", is_flag=True, show_envvar=True, help="End it.")
@click.option("--delete", is_flag=True, show_envvar=True, help="Remove it with its report.")
@click.option("--report", "reports", type=REPORT_FILE, metavar="FILE.html|FILE.json", multiple=True, show_envvar=True, help="Write the report there. May be repeated.")  # fmt: skip  # noqa: E501
@server_option
@timeout_option
@json_option
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
    """Show one of your own evaluations, wait for it, end it, or remove it.

    ID is what `fount evaluations` lists, or its first characters, 4 or more, where no other of yours begins so.

    \b
    Example:
      fount evaluation 0199e2c4b --watch
      fount evaluation 0199e2c4b --report cvae.html --report cvae.json
      fount evaluation 0199e2c4b --cancel
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if watches + cancel + delete > 1 or (reports and (cancel or delete)):
        raise click.UsageError("Give one of --watch, --cancel and --delete; --report goes with --watch or alone")
    check_places(reports)
    with detachable(server) as waited, connected(server, timeout_s) as client:
        info = _find(client, id)
        id = info.id
        if watches:
            waited.id = id
            with watch_progress(quiet=as_json) as progress:
                info = watch(client, id, progress)
            waited.id = ""
            conclude(client, info, reports, as_json=as_json)
        elif delete:
            client.delete_evaluation(id)
            _tell_deleted(id, as_json)
        else:
            _show(client, client.cancel_evaluation(id) if cancel else info, reports, as_json)


def _find(client: Client, id: str) -> EvaluationInfo:
    """The evaluation of an id, or of the beginning of one.

    Raises:
        NotFound: there is none.
        UsageError: there are several.
        FountError: no answer came.
    """
    try:
        return client.evaluation(id)
    except NotFound:
        if len(id) < _FEWEST_CHARACTERS:
            raise
        found = [each.id for each in client.evaluations() if each.id.startswith(id)]
        if not found:
            raise
    if len(found) > 1:
        more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
        named = "".join(f"\n  {plain(each)}" for each in (*found[:_NAMED], *more))
        raise click.UsageError(f"{len(found)} evaluations begin with {id!r}; give more of one:{named}")
    return client.evaluation(found[0])


def _show(client: Client, info: EvaluationInfo, reports: Sequence[Path], as_json: bool) -> None:
    written = write_reports(client, info.id, reports)
    if as_json:
        echo_json({**evaluation_json(info), "reports": written})
        return
    echo_evaluation(info)
    for line in written_lines(written):
        click.echo(line)
    if not info.is_over:
        click.echo(f"\n{how_to_go_on(client.server, info.id)}")


def _tell_deleted(id: str, as_json: bool) -> None:
    if as_json:
        echo_json({"id": id, "deleted": True})
    else:
        click.echo(f"Evaluation {plain(id)} is deleted.")


def _row(info: EvaluationInfo) -> tuple[str, ...]:
    asked = info.envelope
    return (
        info.id,
        f"{asked.model.name}:{asked.model.version}",
        asked.dataset,
        f"{asked.count:,}",
        info.state,
        share_done(info),
        age(info.created),
        verdicts(info),
    )
