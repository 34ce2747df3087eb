"""Values of options that come from the environment: which variables they are, and what is said of wrong ones.

A container platform sets variables of its own for every service, like FOUNT_GATEWAY_PORT=tcp://10.0.0.1:50051 for one
called fount-gateway, which are no values of ours.
"""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.core import ParameterSource

__all__ = ["CommandWithVariables", "ignore_links", "with_variable"]

_LINK = re.compile(r"(tcp|udp|sctp)://")


class CommandWithVariables(click.Command):
    """A command of its own, outside the group `fount`, with the same rules for variables."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options, without variables of a container platform."""
        ignore_links(self, extra.get("auto_envvar_prefix") or "")
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            raise with_variable(error) from error


def ignore_links(command: click.Command, prefix: str) -> None:
    """Remove variables of a command's options that a container platform has set to the address of a service."""
    for option in command.params:
        for name in _variables(option, prefix):
            if name.endswith("_PORT") and _LINK.match(os.environ.get(name, "")):
                value = os.environ.pop(name)
                click.echo(f"warning: {name}={value} is ignored: a container platform sets it for a service of that "
                           f"name; use {option.opts[0]} for the option", err=True)  # fmt: skip


def with_variable(error: click.BadParameter) -> click.BadParameter:
    """Return an error about an option with the variable that the value came from, if it did."""
    context = error.ctx
    if context is None:
        return error
    option = error.param or next((each for each in context.command.params if error.param_hint in each.opts), None)
    if option is None or context.get_parameter_source(option.name or "") is not ParameterSource.ENVIRONMENT:
        return error
    name = next((each for each in _variables(option, context.auto_envvar_prefix or "") if os.environ.get(each)), "")
    if name in error.format_message():  # click names that of an option which shows it
        return error
    message = f"{error.message.rstrip('.')} (the value of the environment variable {name})"
    return click.BadParameter(message, context, error.param, error.param_hint)


def _variables(option: click.Parameter, prefix: str) -> list[str]:
    """Return the variables that click reads for an option, the first that is set."""
    own = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    return [*own, *([f"{prefix}_{option.name.upper()}"] if prefix and option.name else [])]
