"""Options that several commands share; each option shows the environment variable it can be set by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fount.client.channel import DEFAULT_SERVER

__all__ = ["PATH", "FilePath", "many", "option", "parameter_options", "server_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[Any], Any]


class FilePath(click.Path):
    """The name of a file or folder, which is not empty: that would be the working folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if not value:
            self.fail("the name is empty; name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilePath(path_type=Path)
"""A `FilePath` as a `Path`."""


def option(
    flag: str,
    *,
    help: str,
    type: Callable[..., object] | None = None,
    metavar: str | None = None,
    default: str | None = None,
) -> Callable[[_Command], _Command]:
    """Make an option that may be given once."""
    return click.option(
        flag, help=help, type=type, metavar=metavar, default=default, show_envvar=True, show_default=default is not None
    )


def many(
    flag: str, name: str, *, type: click.ParamType[Any], help: str, metavar: str | None = None
) -> Callable[[_Command], _Command]:
    """Make an option that may be given any number of times; `name` is its parameter."""
    return click.option(flag, name, type=type, metavar=metavar, multiple=True, show_envvar=True, help=help)


_PARAMETERS: tuple[_Decorator, ...] = (
    option("--truncation", type=float, metavar="X", help="Draw noise beyond X standard deviations again."),
    option("--temperature", type=float, metavar="X", help="Scale of the noise, or divisor of logits."),
    option("--top-k", type=int, metavar="K", help="Keep the K most likely values per step."),
    option("--top-p", type=float, metavar="P", help="Keep the most likely values up to this probability per step."),
    option("--guidance-scale", type=float, metavar="X", help="Weight of the condition; 1 is no guidance."),
    option("--steps", type=int, metavar="N", help="Steps of an iterative sampler."),
    option("--eta", type=float, metavar="X", help="Fresh noise per step of a diffusion: 0 is DDIM, 1 DDPM."),
    option("--importance-samples", type=int, metavar="K", help="Latents that a bound of a score is computed from."),
    option("--prior-fit", type=float, metavar="X", help="0 draws z from N(0, 1), 1 from the fitted distribution."),
)

_SERVER: tuple[_Decorator, ...] = (
    click.option(
        "--server",
        envvar="FOUNT_SERVER",
        show_envvar=True,
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="HOST:PORT",
        help="The gateway.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        envvar="FOUNT_TIMEOUT",
        show_envvar=True,
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer, or for the next samples.",
    ),
    click.option(
        "--json",
        "as_json",
        envvar="FOUNT_JSON",
        is_flag=True,
        show_envvar=True,
        help="Write one JSON value to stdout, and nothing else.",
    ),
)


def parameter_options(command: _Command) -> _Command:
    """Add the sampling parameters."""
    return _add(_PARAMETERS, command)


def server_options(command: _Command) -> _Command:
    """Add --server, --timeout and --json."""
    return _add(_SERVER, command)


def _add(options: tuple[_Decorator, ...], command: _Command) -> _Command:
    for decorate in reversed(options):
        command = decorate(command)
    return command
