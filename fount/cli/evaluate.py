"""`fount evaluate`: is this generator realistic, diverse, not a copy? An answer, and an exit code for a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Unpack

import click

from fount.cli.connection import connected
from fount.cli.evaluation_watch import (
    WatchProgress,
    conclude,
    detachable,
    how_to_go_on,
    watch,
    watch_progress,
    when_ready,
)
from fount.cli.options import echo_json, json_option, option, parameter_options, plain, server_option, timeout_option
from fount.cli.output.reports import REPORT_FILE, check_places
from fount.client.sync import Client
from fount.errors import FailedPrecondition, FountError, InvalidRequest, NotFound
from fount.evaluation.request import EvaluationQuery, evaluation_request
from fount.evaluation.types import PANELS, EvaluationInfo, evaluation_json

__all__ = ["evaluate"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Gate(click.ParamType[str]):
    """A condition; it holds spaces, so that several in one environment variable have ";" between."""

    name = "gate"
    envvar_list_splitter = ";"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a condition; what it means is the server's to judge."""
        return str(value).strip()


def _many(
    flag: str, name: str, *, type: click.ParamType[Any], metavar: str, help: str
) -> Callable[[_Function], _Function]:
    """An option that may be given any number of times."""
    return click.option(flag, name, type=type, metavar=metavar, multiple=True, show_envvar=True, help=help)


@click.command()
@click.argument("model")
@option("--reference", metavar="DATASET[:TRAIN:HELD_OUT]", help="The real data, and its splits; unset, the one data set of the model's shape that a served classifier can read, its train and its test.")  # fmt: skip  # noqa: E501
@option("--count", type=int, metavar="N", help="How many samples; unset, 10000 or the server's cap.")
@option("--seed", type=int, metavar="N", help="Key of everything drawn, 0 to 2^64 - 1; unset, the server draws one.")
@_many("--panel", "panels", type=click.Choice(list(PANELS)), metavar="PANEL", help=f"A question: {', '.join(PANELS)}. May be repeated; unset, all that fit the model.")  # fmt: skip  # noqa: E501
@_many("--gate", "gates", type=_Gate(), metavar="'METRIC OP NUMBER'", help="A condition that has to hold, as 'copy_rate.upper95 < 0.01'. May be repeated, with ; between in the environment.")  # fmt: skip  # noqa: E501
@option(
    "--extractor",
    metavar="MODEL",
    help="Whose features are compared; unset, the classifier of the reference, or the one model that can read it.",
)
@option(
    "--classifier",
    metavar="MODEL",
    help="Whose labels are compared; unset, the classifier of the reference, or the one model that can read it.",
)
@parameter_options
@_many("--report", "reports", type=REPORT_FILE, metavar="FILE.html|FILE.json", help="Write the report there. May be repeated.")  # fmt: skip  # noqa: E501
@click.option("--detach", is_flag=True, show_envvar=True, help="Only ask for it; `fount evaluation ID --watch` waits.")
@option("--request-id", metavar="ID", help="Makes the command safe to repeat: the same id gives the same evaluation.")
@server_option
@timeout_option
@json_option
# The other options are the query's fields, so they arrive as one value rather than as fourteen arguments.
def evaluate(
    model: str,
    reports: tuple[Path, ...],
    detach: bool,
    server: str,
    timeout_s: float,
    as_json: bool,
    **query: Unpack[EvaluationQuery],
) -> None:
    """Evaluate a model against real data: is it realistic, diverse, and not a copy?

    MODEL is a model's name, name:version, or both with @ and the digest. Every number comes with its interval and with
    what real data scores. Ctrl-C leaves the evaluation to the server.

    Exit codes: 0 when it succeeded and every gate holds; 1 when not, or nobody could find out; 2 when the question was
    wrong, as this command or the server sees it; 130 after Ctrl-C.

    \b
    Example:
      fount evaluate digits-cvae --seed 1 --report cvae.html
      fount evaluate digits-cgan --count 5000 --panel realism --panel diversity
      fount evaluate digits-cvae --gate 'copy_rate.upper95 < 0.01' --gate 'label_agreement.lower95 > 0.9'
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if detach and reports:
        raise click.UsageError("--report is written at the end; leave --detach out, or use `fount evaluation ID`")
    check_places(reports)
    with detachable(server) as waited, connected(server, timeout_s) as client:
        with watch_progress(quiet=as_json) as progress:
            info = _ask(client, model, query, progress)
            if not detach:
                waited.id = info.id
                progress.say(f"Evaluation {info.id} of {info.envelope.model}")
                info = watch(client, info.id, progress)
                waited.id = ""
        if detach:
            _tell_detached(info, server, as_json)
            return
        conclude(client, info, reports, as_json=as_json)


def _ask(client: Client, model: str, query: EvaluationQuery, progress: WatchProgress) -> EvaluationInfo:
    """Ask for it.

    Raises:
        UsageError: the question is wrong, as we or the server see it.
        FountError: no answer came, or another is needed than the question's author.
    """
    try:
        # One id for every attempt, known before the first.
        query["request_id"] = evaluation_request(model, query).request_id
        return when_ready(lambda: client.evaluate(model, **query), client.server, progress)
    except (InvalidRequest, NotFound, FailedPrecondition) as error:
        raise click.UsageError("\n".join(map(plain, _wrong(error)))) from error


def _wrong(error: FountError) -> list[str]:
    """What is wrong with the question, a line a field, where fields are named."""
    fields = error.fields if isinstance(error, InvalidRequest) else []
    if not fields:
        return str(error).splitlines()
    told = [f"  {field}: {text}" if field else f"  {text}" for field, text in fields]
    return ["The question is wrong:", *dict.fromkeys(told)]


def _tell_detached(info: EvaluationInfo, server: str, as_json: bool) -> None:
    if as_json:
        echo_json({**evaluation_json(info), "reports": []})
        return
    click.echo(f"Evaluation {plain(info.id)}, {plain(info.state)}\n{how_to_go_on(server, info.id)}")
