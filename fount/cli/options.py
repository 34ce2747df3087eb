"""What the client's commands have in common: how a server is named, and how a result is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fount.client.channel import DEFAULT_SERVER

__all__ = ["echo_json", "json_option", "option", "parameter_options", "plain", "server_option", "timeout_option"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def option(
    flag: str,
    *,
    help: str,
    type: Callable[..., object] | None = None,
    metavar: str | None = None,
    default: str | None = None,
) -> Callable[[_Function], _Function]:
    """An option that shows the environment variable it may be given by."""
    return click.option(
        flag,
        help=help,
        type=type,
        metavar=metavar,
        default=default,
        show_envvar=True,
        show_default=default is not None,
    )


_PARAMETERS = (
    option("--truncation", type=float, metavar="X", help="Draw noise beyond so many standard deviations again."),
    option("--temperature", type=float, metavar="X", help="Scale of the noise, or divisor of logits."),
    option("--top-k", type=int, metavar="K", help="Keep the k likeliest values a step."),
    option("--top-p", type=float, metavar="P", help="Keep the likeliest values up to this mass a step."),
    option("--guidance-scale", type=float, metavar="X", help="Weight of the condition."),
    option("--steps", type=int, metavar="N", help="Steps of a many-step sampler."),
)


def parameter_options(command: _Function) -> _Function:
    """Add the parameters of a draw."""
    for decorate in reversed(_PARAMETERS):
        command = decorate(command)
    return command


def server_option(command: _Function) -> _Function:
    """Add --server."""
    decorate = click.option(
        "--server",
        envvar="FOUNT_SERVER",
        show_envvar=True,
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="HOST:PORT",
        help="The gateway to ask.",
    )
    return decorate(command)


def timeout_option(command: _Function) -> _Function:
    """Add --timeout."""
    decorate = click.option(
        "--timeout",
        "timeout_s",
        envvar="FOUNT_TIMEOUT",
        show_envvar=True,
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer, or for the next samples.",
    )
    return decorate(command)


def json_option(command: _Function) -> _Function:
    """Add --json."""
    decorate = click.option(
        "--json",
        "as_json",
        envvar="FOUNT_JSON",
        is_flag=True,
        show_envvar=True,
        help="Write one JSON value to stdout, and nothing else.",
    )
    return decorate(command)


def echo_json(value: object) -> None:
    """Write one JSON value to stdout."""
    click.echo(json.dumps(value, indent=2))


def plain(text: str) -> str:
    """Text of a server's as one line, without characters that would move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
