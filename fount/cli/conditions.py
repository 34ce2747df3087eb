"""What samples are conditional on besides a class: the options that name a prefix, or a picture and its mask."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fount.client.catalog import ModelInfo

__all__ = ["conditions_of", "take_pictures"]

_FLAGS = {"prefix_image": "--prefix-image", "image": "--image", "mask": "--mask"}
_LIGHT = 128  # pixels of a mask from here on are white


def take_pictures(options: MutableMapping[str, Any]) -> dict[str, NDArray[np.uint8]]:
    """Remove the options that name image files, and read the files: (H, W, C) uint8 each, by option."""
    paths = {name: path for name in _FLAGS if (path := options.pop(name, None)) is not None}
    if not paths:
        return {}
    from fount.cli.pictures import read_file  # loads the readers of data sets, which no other sample needs

    return {name: read_file(path) for name, path in paths.items()}


def conditions_of(
    pictures: Mapping[str, NDArray[np.uint8]], prefix: str | None, info: ModelInfo | None
) -> dict[str, Any]:
    """Return prefix, image and mask as arguments of `Client.sample`, those that are given.

    Args:
        pictures: what `take_pictures` returned.
        prefix: the text of --prefix.
        info: the model, whose shape the pictures must have; None: it is not known yet.

    Raises:
        click.BadParameter: they cannot go together, or with the model.
    """
    if prefix is not None and "prefix_image" in pictures:
        raise click.BadParameter("cannot go with --prefix; give one of both", param_hint="--prefix-image")
    if prefix is not None and info and info.modality != "text":
        remedy = "name a picture with --prefix-image" if info.modality == "image" else "leave it out"
        message = f"{info.name} draws no texts; {remedy}"
        raise click.BadParameter(message, param_hint="--prefix")
    given: dict[str, Any] = {} if prefix is None else {"prefix": prefix}
    for name, pixels in pictures.items():
        if name == "mask":
            given[name] = (pixels >= _LIGHT).all(axis=-1)  # (H, W)
        elif name == "image":
            is_translated = info is not None and "mask" not in pictures and bool(info.input_shape)
            given[name] = _fitted(name, pixels, info, translated=is_translated)
        else:
            given["prefix"] = _fitted(name, pixels, info).tobytes()
    if info and info.modality != "image" and pictures:
        remedy = "give --prefix TEXT" if info.modality == "text" else "leave it out"
        message = f"{info.name} draws no pictures; {remedy}"
        raise click.BadParameter(message, param_hint=_FLAGS[next(iter(pictures))])
    return given


def _fitted(
    name: str, pixels: NDArray[np.uint8], info: ModelInfo | None, *, translated: bool = False
) -> NDArray[np.uint8]:
    """Give grey pixels the model's channels, and refuse a picture that is not of the model's shape."""
    if info is None or info.modality != "image":
        return pixels
    height, width, channels = info.input_shape if translated else info.sample_shape
    is_grey = bool((pixels == pixels[..., :1]).all())
    if is_grey and channels != pixels.shape[2]:
        pixels = pixels[..., :1].repeat(channels, axis=2)
    fits = pixels.shape[1:] == (width, channels) and (
        pixels.shape[0] <= height if name == "prefix_image" else pixels.shape[0] == height
    )
    if not fits:
        most = "at most " * (name == "prefix_image")
        found, due = (" × ".join(map(str, each)) for each in (pixels.shape, (height, width, channels)))
        message = f"is {found} (height, width, channels), and {info.name} takes {most}{due}"
        raise click.BadParameter(message, param_hint=_FLAGS[name])
    return pixels
