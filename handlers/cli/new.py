"""The command `fount new`: write a complete model folder that the user then fills in."""

from __future__ import annotations

import re
from pathlib import Path

import click

from handlers.cli.options import model_store_option, option
from handlers.scaffold.template import FAMILIES, FamilyName, ModelTemplate, TemplateError

__all__ = ["new"]

_MAX_CLASSES = 10_000


def _size(context: click.Context, option: click.Parameter, text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH, or one number for both."""
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not HEIGHTxWIDTH in pixels, as 32x32")
    return int(found[1]), int(found[2] or found[1])


def _labels(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    """Parse comma-separated names, a number of classes, or none."""
    if text in ("", "none", "0"):
        return ()
    if text.isascii() and text.isdigit():
        if int(text) > _MAX_CLASSES:
            raise click.BadParameter(f"{text} classes are more than {_MAX_CLASSES}")
        return tuple(str(label) for label in range(int(text)))
    return tuple(name.strip() for name in text.split(","))


@click.command()
@click.argument("name")
@model_store_option("Folder with one folder for each model; created if absent.")
@option("--size", callback=_size, default="32x32", metavar="HEIGHTxWIDTH", help="Size of one sample, in pixels.")
@option("--channels", type=click.IntRange(min=1, max=1024), default=3, help="1 is grey, 3 is RGB.")
@option("--labels", callback=_labels, default="none", metavar="cat,dog | N | none",
        help="Names of the classes, or their number; none for an unconditional model.")  # fmt: skip
@option("--latent", type=click.IntRange(min=1, max=2**20), default=100, help="Length of z.")
@option("--family", type=click.Choice(FAMILIES), default="module",
        help="Kind of model: a custom class, an architecture of Fount, or a program.")  # fmt: skip
def new(
    name: str,
    model_store: Path,
    size: tuple[int, int],
    channels: int,
    labels: tuple[str, ...],
    latent: int,
    family: FamilyName,
) -> None:
    """Write a model folder for a custom generator.

    NAME is the model's name in requests. The folder has a card with every key explained, a class to replace, its tests,
    and untrained weights, so that check, pack and serve work before anything is changed. Nothing is ever overwritten.

    \b
    Example:
      fount new shapes-gan --size 32x32 --channels 3
      fount new pets --labels cat,dog --size 64x64
      fount new my-digits --family conditional-vae --size 28 --channels 1 --labels 10 --latent 16
    """  # noqa: D301 - \b makes click keep the lines
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
