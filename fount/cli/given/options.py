"""Options of the commands over given rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import click

from fount.cli.classes import parse_label, parse_labels
from fount.cli.options import PATH, FilePath, option, server_options
from fount.sampling.request import PRIORITIES

__all__ = [
    "GivenOptions", "draw_options", "encoding_option", "label_options", "model_options", "out_option", "row_options",
]  # fmt: skip

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[Any], Any]


class GivenOptions(TypedDict, total=False):
    """The options that the commands share."""

    inputs: tuple[Path, ...]
    dataset: str | None
    rows: int
    label: str | None
    labels: list[str] | None
    start_index: int | None
    digest: str | None
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None
    server: str
    timeout_s: float
    as_json: bool


def row_options(limit: int) -> Callable[[_Command], _Command]:
    """Add the argument that names rows, --dataset, and --rows with its default."""
    return _adding(
        click.argument("inputs", nargs=-1, type=PATH, metavar="[IMAGES]..."),
        option("--dataset", metavar="NAME", help="Take rows of the server's data set, instead of IMAGES."),
        option("--rows", type=click.IntRange(min=1), metavar="N", default=str(limit), help="The most rows."),
    )


def label_options(command: _Command) -> _Command:
    """Add --label and --labels."""
    add: Callable[[_Command], _Command] = _adding(
        option("--label", type=parse_label, metavar="LABEL", help="The class of all rows; as in `fount sample`."),
        option("--labels", type=parse_labels, metavar="1,2,3", help="One class per row, or pair of rows."),
    )
    return add(command)


def model_options(command: _Command) -> _Command:
    """Add what pins a model and its results, and the server."""
    add: Callable[[_Command], _Command] = _adding(
        option("--digest", metavar="SHA256", help="Pin the model's digest."),
        option("--numerics", metavar="ID", help="Pin the numerics, as `fount model` names them."),
        option("--priority", type=click.Choice(list(PRIORITIES)), help="Priority of the request."),
        server_options,
    )
    return add(command)


def out_option(help: str, metavar: str, *, required: bool = True) -> Callable[[_Command], _Command]:
    """Add --out, the file to write."""
    return click.option("--out", required=required, show_envvar=True, metavar=metavar, type=FilePath(), help=help)


def encoding_option(command: _Command) -> _Command:
    """Add --encoding."""
    choice = click.Choice(["uint8", "float32"])
    add: Callable[[_Command], _Command] = option("--encoding", type=choice, help="Element type; unset, the model's.")
    return add(command)


def draw_options(what: str) -> Callable[[_Command], _Command]:
    """Add --seed of what is drawn, and --start-index."""
    seed = f"Seed of {what}, 0 to 2^64 - 1; unset, the server draws one."
    return _adding(
        option("--seed", type=int, metavar="N", help=seed),
        option("--start-index", type=int, metavar="N", help=f"Index of the first row, of {what}; unset, 0."),
    )


def _adding(*decorators: _Decorator) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return add
