"""The options that name data sets: of commands that run a gateway, and of runners, which must have the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["data_set_option", "data_sets_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def data_set_option(command: Command) -> Command:
    """--data-set NAME=PATH."""
    return click.option(
        "--data-set", multiple=True, metavar="NAME=PATH", show_envvar=True,
        help="A data set to augment or to compare with: a folder of IDX or Parquet files, one with a folder a class, "
             "an NPZ or a Parquet file. Repeatable; digits are always there.",
    )(command)  # fmt: skip


def data_sets_option(command: Command) -> Command:
    """--data-sets FILE."""
    return click.option(
        "--data-sets", type=click.Path(path_type=Path), metavar="FILE", show_envvar=True,
        help="Data sets with classes, splits, classifier and policy, as YAML; see docs/augmentation.md.",
    )(command)  # fmt: skip
