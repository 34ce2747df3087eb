"""How much a command says: --log-level, which sets logs up before anything else is read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["log_level_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def log_level_option(command: Command) -> Command:
    """--log-level."""
    return click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
        show_default=True, show_envvar=True, expose_value=False, is_eager=True, callback=_set_up_logs,
    )(command)  # fmt: skip


def _set_up_logs(context: click.Context, option: click.Parameter, level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
