"""Draw points of a plane, coloured by class, with a legend beside them, and the pictures of a map without gaps."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fount.cli.output.images import drawable, to_pillow

__all__ = ["beside", "mosaic", "scatter"]

_SMOOTH = 2  # pixels drawn for one of the picture
_MARGIN, _RADIUS, _TEXT = 8, 2, 13  # pixels
_LEGEND = 140  # pixels of width
_MIN_SIDE = 400  # pixels; a smaller map is scaled up to it
_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#000000", "#8c564b", "#7f7f7f",
)  # fmt: skip
"""Eight colours that the colour-blind tell apart, and two more.

Source: Okabe and Ito, "Color universal design", 2008.
"""


def mosaic(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """Draw (N, H, W, 1 or 3) images side by side, without gaps, and scaled up to be visible."""
    count, height, width, channels = images.shape
    lines = images.reshape(count // columns, columns, height, width, channels)
    # (lines, columns, H, W, C) -> (lines, H, columns, W, C)
    sheet = to_pillow(lines.transpose(0, 2, 1, 3, 4).reshape(count // columns * height, columns * width, channels))
    factor = max(1, math.ceil(_MIN_SIDE / min(sheet.size)))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def scatter(points: NDArray[Any], classes: Sequence[int], names: Sequence[str], side: int) -> Image.Image:
    """Draw points in a frame of `side` pixels, with the second coordinate upwards, and a legend at the right.

    Args:
        points: (N, 2), finite.
        classes: N indices of `names`.
        names: of classes; with fewer than two of them there is no legend.
        side: pixels of the frame.
    """
    colours = [_colour(k, len(names)) for k in range(len(names))]
    legend = _LEGEND if len(names) > 1 else 0
    large = Image.new("RGB", ((side + legend) * _SMOOTH, side * _SMOOTH), "white")
    draw = ImageDraw.Draw(large)
    inner = (side - 2 * _MARGIN) * _SMOOTH
    low, high = points.min(axis=0), points.max(axis=0)
    places = (points - low) / np.where(high > low, high - low, 1.0)  # (N, 2) in [0, 1]
    centres = _MARGIN * _SMOOTH + np.stack([places[:, 0], 1 - places[:, 1]], axis=1) * inner
    for (x, y), k in zip(centres.tolist(), classes, strict=True):
        radius = _RADIUS * _SMOOTH
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[k])
    draw.rectangle((0, 0, side * _SMOOTH - 1, side * _SMOOTH - 1), outline="#888888", width=_SMOOTH)
    picture = large.resize((side + legend, side), Image.Resampling.BOX)
    if legend:
        _draw_legend(picture, names, colours, side)
    return picture


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Put two pictures next to each other, on white."""
    width, height = left.width + right.width + 3 * _MARGIN, max(left.height, right.height) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(left.convert("RGB"), (_MARGIN, _MARGIN))
    sheet.paste(right, (left.width + 2 * _MARGIN, _MARGIN))
    return sheet


def _draw_legend(picture: Image.Image, names: Sequence[str], colours: Sequence[str], left: int) -> None:
    """Write the names that fit, each after its colour, and how many more there are."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_TEXT)
    step = _TEXT + 5
    most = max(1, picture.height // step)
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"and {len(names) - most + 1} more"]
    for k, name in enumerate(shown):
        top, start = k * step, left + _MARGIN
        if len(names) <= most or k < most - 1:
            draw.rectangle((start, top + 3, start + _TEXT - 3, top + _TEXT), fill=colours[k])
        characters = drawable(name, font)
        while characters and draw.textlength("".join(characters), font=font) > _LEGEND - 3 * _MARGIN - _TEXT:
            characters.pop()
        draw.text((start + _TEXT + 3, top), "".join(characters), fill="black", font=font)


def _colour(k: int, count: int) -> str:
    """Return the colour of class k: one of the fixed ones, or of equally spaced hues where they are too few."""
    if count <= len(_COLOURS):
        return _COLOURS[k]
    red, green, blue = colorsys.hsv_to_rgb(k / count, 0.9, 0.6 + 0.35 * (k % 2))
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
