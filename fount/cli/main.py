"""The command `fount`: a group whose commands are imported on first use.

The client's own commands are always available. Those of the gateway and the workers are found through the entry-point
group `fount.commands`; one that cannot be imported reports the missing extra.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import module_from_spec
from typing import Any, NoReturn, cast

import click

from fount.cli.output.text import escape_unknown_characters, plain
from fount.cli.variables import ignore_links, with_variable
from fount.environment import ROOT
from fount.errors import FountError, MissingExtra

__all__ = ["main"]

_OUR_PACKAGES = ("fount", "handlers", "service")
_GENERIC_PACKAGES = ("handlers", "service")  # names that users' own modules have as well
_INTERRUPTED = 130  # exit code after SIGINT, 128 + 2

# name: (module and function, summary)
_CLIENT_COMMANDS: dict[str, tuple[str, str]] = {
    "augment": ("fount.cli.augment:augment", "Draw images next to their variants under a policy."),
    "classify": ("fount.cli.given.scores:classify", "Find the class of each row, and the accuracy where it is known."),
    "colourise": ("fount.cli.given.translations:colourise", "Colour grey pictures, by a model that translates."),
    "datasets": ("fount.cli.datasets:datasets", "List the data sets a server can augment, or show one."),
    "decode": ("fount.cli.given.latents:decode", "Decode latents to an image grid or an NPZ file."),
    "encode": ("fount.cli.given.latents:encode", "Write the latents of images or vectors to an NPZ file."),
    "evaluate": ("fount.cli.evaluate:evaluate", "Evaluate a model against real data, with gates for a pipeline."),
    "evaluation": ("fount.cli.evaluations:evaluation", "Show, watch, cancel or delete an evaluation, or its report."),
    "evaluations": ("fount.cli.evaluations:evaluations", "List your own evaluations."),
    "interpolate": ("fount.cli.given.variations:interpolate", "Draw lines between pairs of images."),
    "latent-map": ("fount.cli.given.latent_map:latent_map", "Draw a plane of a latent space, and codes in it."),
    "model": ("fount.cli.models:model", "Show one model: its inputs, outputs and measured quality."),
    "models": ("fount.cli.models:models", "List the models a server offers."),
    "plan": ("fount.cli.plan:plan", "Plan an augmented data set: rows per class and source."),
    "pull": ("fount.cli.pull:pull", "Pull the rows of a plan into files; resumes an earlier run."),
    "reconstruct": ("fount.cli.given.variations:reconstruct", "Encode images and decode their latents."),
    "sample": ("fount.cli.sample:sample", "Draw samples of a model into an image grid, an NPZ file or a folder."),
    "score": ("fount.cli.given.scores:score", "Compute log-likelihoods of images or vectors, with their means."),
    "translate": ("fount.cli.given.translations:translate", "Make pictures of pictures, in another style or domain."),
    "upscale": ("fount.cli.given.translations:upscale", "Enlarge pictures, by a model that translates."),
    "vary": ("fount.cli.given.variations:vary", "Draw variants of images around or along their latents."),
}

# name: (summary, extra); their entry points have the modules.
_EXTRA_COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("Check a custom model before it is packed, and record its golden samples.", "torch"),
    "convert": ("Convert a checkpoint into safetensors weights, without unpickling anything.", "torch"),
    "demo": ("Serve models, draw from each, and stop: a test of the whole system.", "serve"),
    "gateway": ("Run the gateway for workers that run elsewhere.", "serve"),
    "new": ("Write a template folder for a custom model.", "torch"),
    "pack": ("Pack a model's card and weights into an archive.", "torch"),
    "quality": ("Measure a model on held-out real data, with intervals.", "torch"),
    "runner": ("Run the evaluations that a gateway has queued.", "serve"),
    "serve": ("Run the gateway and its workers on this machine.", "serve"),
    "train": ("Train a model by its recipe.", "torch"),
    "tune": ("Measure which settings make a model run fastest on this machine.", "torch"),
}


class _LazyGroup(click.Group):
    """Lists commands without importing them, and shows expected errors as messages."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; what the operating system refuses becomes a message and exit code 1."""
        escape_unknown_characters()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            _exit_with(_describe(error))
        except UnicodeEncodeError as error:  # of an argument that is sent to a server
            _exit_with(f"{error.object!a} is not text in the encoding of this system: write it again, or set LC_ALL")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of all commands, installed or not."""
        return sorted(_CLIENT_COMMANDS | _EXTRA_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of the name."""
        if cmd_name in _CLIENT_COMMANDS:
            module, _, name = _CLIENT_COMMANDS[cmd_name][0].partition(":")
            return cast(click.Command, getattr(import_module(module), name))
        return _load(cmd_name) if cmd_name in _EXTRA_COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line, and remove variables that a container platform has set for its options."""
        name, command, rest = super().resolve_command(ctx, args)
        if name and command:
            ignore_links(command, f"{ctx.auto_envvar_prefix}_{name.upper().replace('-', '_')}")
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, each with its summary."""
        summaries = {name: summary for name, (_, summary) in _CLIENT_COMMANDS.items()}
        summaries |= {name: summary for name, (summary, _) in _EXTRA_COMMANDS.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an expected error becomes a message and exit code 1, without a traceback."""
        try:
            with _naming_extra(lambda: ctx.invoked_subcommand):  # of a command that imports a package when it runs
                return super().invoke(ctx)
        except click.BadParameter as error:
            raise with_variable(error) from error
        except FountError as error:
            raise click.ClickException("\n".join(map(plain, str(error).split("\n")))) from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from None


def _describe(error: OSError) -> str:
    """Describe an error of a file, or of the output, which has no name."""
    reason = error.strerror or type(error).__name__
    if error.filename is None:
        return f"The output cannot be written: {reason}. Free some space, or write it elsewhere."
    return f"{str(error.filename)!r} cannot be used: {reason}. Name another path."


def _exit_with(message: str) -> NoReturn:
    """Print a message and end, even when neither can be written."""
    with suppress(OSError, ValueError):  # otherwise Python writes what is left again when it exits, and fails again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with suppress(OSError):
        click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _load(name: str) -> click.Command:
    found: list[EntryPoint] = list(entry_points(group="fount.commands", name=name))
    if not found:
        raise MissingExtra.of(command=name, extra=_EXTRA_COMMANDS[name][1], missing=f"the entry point {name}")
    with _naming_extra(lambda: name):
        _import_generic_packages()
        return cast(click.Command, found[0].load())


def _import_generic_packages() -> None:
    """Import our packages from Fount's folder, whatever modules of the same names are in PYTHONPATH."""
    for name in _GENERIC_PACKAGES:
        spec = PathFinder.find_spec(name, [str(ROOT)])
        if spec and spec.loader and name not in sys.modules:
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])


@contextmanager
def _naming_extra(command: Callable[[], str | None]) -> Iterator[None]:
    """Raise a missing module as the missing extra of a command; a missing module of our own stays as it is."""
    try:
        yield
    except ModuleNotFoundError as error:
        name, module = command(), (error.name or "").partition(".")[0]
        if name not in _EXTRA_COMMANDS or not module or module in _OUR_PACKAGES:
            raise
        raise MissingExtra.of(command=name, extra=_EXTRA_COMMANDS[name][1], missing=module) from error


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FOUNT", "max_content_width": 100},
)
@click.version_option(version("fount"), prog_name="fount")
def main() -> None:
    """Draw reproducible samples from trained generators.

    \b
    Example:
      fount serve &
      fount models
      fount sample digits-cvae --label 7 --count 16 --seed 1 --out sevens.png
    """  # noqa: D301  # \b is click's: keep the lines as they are
