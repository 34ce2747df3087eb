"""`fount evaluate`: evaluate a generator against real data, with an exit code for pipelines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Unpack

import click

from fount.cli.connection import connected
from fount.cli.evaluation_watch import (
    WatchProgress,
    conclude,
    continuation,
    detach_on_interrupt,
    retry_until_ready,
    watch,
)
from fount.cli.options import many, option, parameter_options, server_options
from fount.cli.output.reports import REPORT_FILE, check_report_paths
from fount.cli.output.text import echo_result, note_numbers_read_as_names, plain
from fount.client.sync import Client
from fount.errors import FailedPrecondition, InvalidRequest, NotFound
from fount.evaluation.request import EvaluationQuery, evaluation_request
from fount.evaluation.types import PANELS, EvaluationInfo, evaluation_json

__all__ = ["evaluate"]

_CLASS = re.compile(r"\[([^\]]*)\]")  # of a gate


class _Gate(click.ParamType[str]):
    """A condition; it contains spaces, so several in one environment variable are separated by ";"."""

    name = "gate"
    envvar_list_splitter = ";"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Strip a condition, which the server parses."""
        return str(value).strip()


@click.command()
@click.argument("model")
@option("--reference", metavar="DATASET[:TRAIN:HELD_OUT]", help="The real data, and its splits; unset, the one data set of the model's shape that a served classifier can read, with its train and test splits.")  # fmt: skip  # noqa: E501
@option("--count", type=int, metavar="N", help="Number of samples; unset, 10000 or the server's maximum.")
@option("--seed", type=int, metavar="N", help="Seed of everything drawn, 0 to 2^64 - 1; unset, the server draws one.")
@many("--panel", "panels", type=click.Choice(list(PANELS)), metavar="PANEL", help=f"What to evaluate: {', '.join(PANELS)}. May be repeated; unset, all that fit the model.")  # fmt: skip  # noqa: E501
@many("--gate", "gates", type=_Gate(), metavar="'METRIC OP NUMBER'", help="A condition that has to hold, as in 'copy_rate.upper95 < 0.01'. May be repeated, separated by ; in the environment.")  # fmt: skip  # noqa: E501
@option("--extractor", metavar="MODEL", help="The model whose features are compared; unset, the reference's classifier, or the one model that can read it.")  # fmt: skip  # noqa: E501
@option("--classifier", metavar="MODEL", help="The model whose labels are compared; unset, the reference's classifier, or the one model that can read it.")  # fmt: skip  # noqa: E501
@parameter_options
@many("--report", "reports", type=REPORT_FILE, metavar="FILE.html|FILE.json", help="Write the report to FILE. May be repeated.")  # fmt: skip  # noqa: E501
@click.option("--detach", is_flag=True, show_envvar=True, help="Start it and exit; `fount evaluation ID --watch` waits for it.")  # fmt: skip  # noqa: E501
@option("--request-id", metavar="ID", help="Makes the command safe to repeat: the same ID gives the same evaluation.")
@server_options
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

    MODEL is a model's name, name:version, or both with @ and the digest. Every metric is reported with its interval and
    with the value of real data. Ctrl-C detaches; the evaluation continues on the server.

    Exit codes: 0 when it succeeded and every gate passed; 1 when not, or the result is unknown; 2 when the request was
    invalid, as checked by this command or the server; 130 after Ctrl-C.

    \b
    Example:
      fount evaluate digits-cvae --seed 1 --report cvae.html
      fount evaluate digits-cgan --count 5000 --panel realism --panel diversity
      fount evaluate digits-cvae --gate 'copy_rate.upper95 < 0.01' --gate 'label_agreement.lower95 > 0.9'
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if detach and reports:
        raise click.UsageError("--report is written at the end; remove --detach, or use `fount evaluation ID`")
    check_report_paths(reports)
    with detach_on_interrupt(server) as watched, connected(server, timeout_s) as client:
        with WatchProgress(quiet=as_json) as progress:
            info = _create(client, model, query, progress)
            found = (_CLASS.search(gate) for gate in query.get("gates") or ())
            note_numbers_read_as_names([each[1] for each in found if each], info.envelope.classes)
            if not detach:
                watched.id = info.id
                progress.print(f"Evaluation {info.id} of {info.envelope.model}")
                info = watch(client, info.id, progress)
                watched.id = None
        if detach:
            lines = (plain(f"Evaluation {info.id}, {info.state}"), continuation(server, info.id))
            echo_result({**evaluation_json(info), "reports": []}, lines, as_json=as_json)
        else:
            conclude(client, info, reports, as_json=as_json)


def _create(client: Client, model: str, query: EvaluationQuery, progress: WatchProgress) -> EvaluationInfo:
    """Create the evaluation; a request that is invalid, as checked here or by the server, is a UsageError."""
    try:
        # One id for every attempt, known before the first.
        query["request_id"] = evaluation_request(model, query).request_id
        return retry_until_ready(lambda: client.evaluate(model, **query), progress)
    except (InvalidRequest, NotFound, FailedPrecondition) as error:
        lines = str(error).splitlines()
        if isinstance(error, InvalidRequest) and error.fields:
            problems = [f"  {field}: {text}" if field else f"  {text}" for field, text in error.fields]
            lines = ["The request is invalid:", *dict.fromkeys(problems)]
        raise click.UsageError("\n".join(map(plain, lines))) from error
