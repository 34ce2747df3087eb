"""The command `fount new`: write a complete model folder that the user then fills in."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.core import ParameterSource

from handlers.cli.options import FOLDER, model_store_option, option
from handlers.scaffold.template import FAMILIES, FamilyName, ModelTemplate, TemplateError

__all__ = ["new"]

_MAX_CLASSES = 10_000
_OF_TEMPLATES = (
    "size", "channels", "labels", "latent", "family", "translate", "condition", "input_size", "input_channels",
)  # fmt: skip  # options that a trained model has already


def _size(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH, or one number for both."""
    if text is None:
        return None
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


def _classes(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Parse comma-separated names."""
    return () if text is None else tuple(name.strip() for name in text.split(","))


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
@click.option("--translate", is_flag=True, show_envvar=True,
        help="It makes a picture of a given one, instead of sampling; --labels are its directions.")  # fmt: skip
@option("--condition", type=click.Choice(["image"]),
        help="As --translate, but it draws: every picture has many answers, each with its own z.")  # fmt: skip
@option("--input-size", callback=_size, metavar="HEIGHTxWIDTH",
        help="Size of a picture to translate.  [default: that of a sample]")  # fmt: skip
@option("--input-channels", type=click.IntRange(min=1, max=1024),
        help="Channels of a picture to translate.  [default: those of a sample]")  # fmt: skip
@option("--from-diffusers", type=FOLDER, metavar="DIR",
        help="Serve the trained UNet2DModel in this folder, which save_pretrained of diffusers wrote.")  # fmt: skip
@option("--classes", callback=_classes, metavar="cat,dog",
        help="With --from-diffusers: class names in the order of labels.  [default: 0,1,...]")  # fmt: skip
@click.pass_context
def new(
    context: click.Context,
    name: str,
    model_store: Path,
    size: tuple[int, int],
    channels: int,
    labels: tuple[str, ...],
    latent: int,
    family: FamilyName,
    translate: bool,
    condition: str | None,
    input_size: tuple[int, int] | None,
    input_channels: int | None,
    from_diffusers: Path | None,
    classes: tuple[str, ...],
) -> None:
    """Write a model folder for a custom generator.

    NAME is the model's name in requests. The folder has a card with every key explained, a class to replace, its tests,
    and untrained weights, so that check, pack and serve work before anything is changed. Nothing is ever overwritten.

    With --from-diffusers the folder has the trained weights of a pipeline like DDPMPipeline or DDIMPipeline, or of its
    network alone, and golden samples drawn from them, which takes a while for large models.

    \b
    Example:
      fount new shapes-gan --size 32x32 --channels 3
      fount new pets --labels cat,dog --size 64x64
      fount new inker --translate --size 28 --channels 1
      fount new upscaler --condition image --size 28 --channels 1 --input-size 7
      fount new my-digits --family conditional-vae --size 28 --channels 1 --labels 10 --latent 16
      fount new my-ddpm --from-diffusers ./ddpm-cifar10 --classes plane,car,bird,cat,deer,dog,frog,horse,ship,truck
    """  # noqa: D301 - \b makes click keep the lines
    _check_options(context, from_diffusers, classes)
    try:
        if from_diffusers is not None:
            from handlers.scaffold.diffusers_model import write_diffusers_folder

            folder = write_diffusers_folder(name, from_diffusers, classes, model_store)
        else:
            translates = translate or condition is not None
            if not translates and (input_size or input_channels):
                wrong = "--input-size and --input-channels are of a model that translates"
                raise click.UsageError(f"{wrong}; add --translate or --condition image, or leave them out")
            template = ModelTemplate(
                input_shape=(*(input_size or size), input_channels or channels) if translates else None,
                draws=condition is not None,
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


def _check_options(context: click.Context, source: Path | None, classes: tuple[str, ...]) -> None:
    """Refuse options of a new architecture together with a trained model, and the reverse."""
    if source is None:
        if classes:
            raise click.UsageError("--classes is for --from-diffusers; name the classes of a new model with --labels")
        return
    default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    if given := [name for name in _OF_TEMPLATES if context.get_parameter_source(name) not in default]:
        options = ", ".join(f"--{name}" for name in given)
        remedy = "name classes with --classes" if given == ["labels"] else "leave them out"
        raise click.UsageError(f"the model in {source} defines {options} itself; {remedy}")
