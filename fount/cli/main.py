"""The command `fount`: one group, whose commands are loaded when used.

The client's own commands are always there. Those of the gateway and the workers are found through the entry-point group
`fount.commands`, and say which extra is missing when they cannot be loaded.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from fount.errors import FountError, MissingExtra

__all__ = ["main"]

_OUR_PACKAGES = ("fount", "handlers", "service")
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# name: (home, summary)
_OWN: dict[str, tuple[str, str]] = {
    "augment": ("fount.cli.augment:augment", "Show pictures beside their variants under a policy."),
    "datasets": ("fount.cli.datasets:datasets", "List the data sets a server can augment, or show one."),
    "evaluate": (
        "fount.cli.evaluate:evaluate",
        "Evaluate a model: realistic, diverse, and not a copy? Gates for a pipeline.",
    ),
    "evaluation": ("fount.cli.evaluations:evaluation", "Show an evaluation, wait for it, end it, or fetch its report."),
    "evaluations": ("fount.cli.evaluations:evaluations", "List your own evaluations."),
    "model": ("fount.cli.models:model", "Show one model: what it takes, and how well it does."),
    "models": ("fount.cli.models:models", "List the models a server offers."),
    "plan": ("fount.cli.plan:plan", "Plan an augmented data set: how many rows come from where."),
    "pull": ("fount.cli.pull:pull", "Pull the rows of a plan into files, going on where an earlier run ended."),
    "sample": ("fount.cli.sample:sample", "Draw samples of a model into a picture, an NPZ file or a folder."),
}

# name: (summary, extra); where they live, their entry points say.
_FOUND: dict[str, tuple[str, str]] = {
    "check": ("Check a model of your own before it is packed, and record its golden samples.", "torch"),
    "convert": ("Turn a checkpoint into safetensors weights, without unpickling anything.", "torch"),
    "demo": ("Serve models, draw from each, and stop: to see everything work once.", "serve"),
    "gateway": ("Run the gateway in front of workers that run elsewhere.", "serve"),
    "new": ("Write a model folder to fill in, for a generator of your own.", "torch"),
    "pack": ("Pack a model's card and weights into an archive.", "torch"),
    "quality": ("Measure a model on held-out real data, with intervals.", "torch"),
    "runner": ("Work off the evaluations that a gateway has queued.", "serve"),
    "serve": ("Run the gateway and its workers on this machine.", "serve"),
    "train": ("Train a model by its recipe.", "torch"),
    "tune": ("Measure how a model runs fastest on this machine.", "torch"),
}


class _LazyGroup(click.Group):
    """Lists commands without importing them, and turns expected errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, installed or not."""
        return sorted(_OWN | _FOUND)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None when there is none of the name."""
        if cmd_name in _OWN:
            module, _, name = _OWN[cmd_name][0].partition(":")
            return _as_command(getattr(import_module(module), name))
        return _load(cmd_name) if cmd_name in _FOUND else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, each with its summary."""
        summaries = {name: summary for name, (_, summary) in _OWN.items()}
        summaries |= {name: summary for name, (summary, _) in _FOUND.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what a person can act on is a message and exit code 1, never a traceback."""
        try:
            return self._invoke(ctx)
        except FountError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from None

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:  # of a command that imports what it needs only when it runs
            if (missing := _missing_extra(ctx.invoked_subcommand, error)) is None:
                raise
            raise missing from error


def _load(name: str) -> click.Command:
    found: list[EntryPoint] = list(entry_points(group="fount.commands", name=name))
    if not found:
        raise MissingExtra.of(command=name, extra=_FOUND[name][1], missing=f"the entry point {name}")
    try:
        return _as_command(found[0].load())
    except ModuleNotFoundError as error:
        if (missing := _missing_extra(name, error)) is None:
            raise
        raise missing from error


def _missing_extra(command: str | None, error: ModuleNotFoundError) -> MissingExtra | None:
    """Which extra a module that is not there belongs to; None when it is one of our own, which is a fault."""
    module = (error.name or "").partition(".")[0]
    if command is None or command not in _FOUND or not module or module in _OUR_PACKAGES:
        return None
    return MissingExtra.of(command=command, extra=_FOUND[command][1], missing=module)


def _as_command(loaded: Any) -> click.Command:
    if not isinstance(loaded, click.Command):
        raise TypeError(f"{loaded!r} is not a command")
    return loaded


@click.group(
    cls=_LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "FOUNT",
        "max_content_width": 100,
    },
)
@click.version_option(version("fount"), prog_name="fount")
def main() -> None:
    """Samples from trained generators, each with an address of its own.

    \b
    Example:
      fount serve &
      fount models
      fount sample digits-cvae --label 7 --count 16 --seed 1 --out sevens.png
    """  # noqa: D301  # \b is click's: keep the lines as they are
