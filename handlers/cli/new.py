"""The command `fount new`: a model folder to fill in, that works from its first moment."""

from __future__ import annotations

import re
from pathlib import Path

import click

from handlers.cli.options import model_store_option
from handlers.scaffold.template import FAMILIES, FamilyName, ModelTemplate, TemplateError

__all__ = ["new"]

_MOST_CLASSES = 10_000


def _size(context: click.Context, option: click.Parameter, text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH, or one number for both."""
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not HEIGHTxWIDTH in pixels, as 32x32")
    return int(found[1]), int(found[2] or found[1])


def _labels(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    """Read names with commas between, a number of classes, or none."""
    if text in ("", "none", "0"):
        return ()
    if text.isascii() and text.isdigit():
        if int(text) > _MOST_CLASSES:
            raise click.BadParameter(f"{text} classes are more than {_MOST_CLASSES}")
        return tuple(str(label) for label in range(int(text)))
    return tuple(name.strip() for name in text.split(","))


@click.command()
@click.argument("name")
@model_store_option("Folder with one folder a model; made when absent.")
@click.option(
    "--size",
    callback=_size,
    default="32x32",
    show_default=True,
    show_envvar=True,
    metavar="HEIGHTxWIDTH",
    help="Of one sample, in pixels.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1, max=1024),
    default=3,
    show_default=True,
    show_envvar=True,
    help="1 is grey, 3 is RGB.",
)
@click.option(
    "--labels",
    callback=_labels,
    default="none",
    show_default=True,
    show_envvar=True,
    metavar="cat,dog | N | none",
    help="Names of the classes, or how many; none is unconditional.",
)
@click.option(
    "--latent",
    type=click.IntRange(min=1, max=2**20),
    default=100,
    show_default=True,
    show_envvar=True,
    help="Length of z.",
)
@click.option(
    "--family",
    type=click.Choice(FAMILIES),
    default="module",
    show_default=True,
    show_envvar=True,
    help="How the model comes in: a class of your own, an architecture of Fount's, or a program.",
)
def new(  # one argument an option
    name: str,
    model_store: Path,
    size: tuple[int, int],
    channels: int,
    labels: tuple[str, ...],
    latent: int,
    family: FamilyName,
) -> None:
    """Write a model folder to fill in, for a generator of your own.

    NAME is what clients will ask for. The folder has a card with every key explained, a class to replace, its tests,
    and untrained weights, so that check, pack and serve work before anything is changed. Nothing is ever overwritten.

    \b
    Example:
      fount new shapes-gan --size 32x32 --channels 3
      fount new pets --labels cat,dog --size 64x64
      fount new my-digits --family conditional-vae --size 28 --channels 1 --labels 10 --latent 16
    """  # noqa: D301  # \b is click's mark for lines to keep
    try:
        template = ModelTemplate(
            name=name,
            height=size[0],
            width=size[1],
            channels=channels,
            classes=labels,
            latent_dim=latent,
            family=family,
        )
        from handlers.scaffold.folder import write_folder

        folder = write_folder(template, model_store)
    except TemplateError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Wrote {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}\n")
    click.echo((folder / "README.md").read_text(encoding="utf-8").split("\n\n", 1)[1], nl=False)
