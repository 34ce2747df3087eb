"""Samples as PNG: single tiles, and sheets of tiles with see-through gaps. Pages scale them up; files stay small."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel

__all__ = ["LARGEST_TILE", "Figure", "FigureData", "finite", "read_classes", "sheet", "shown_classes", "tile"]


LARGEST_TILE = 64
"""Pixels of a tile's longer side, at most; larger pictures are averaged down."""

_COMPRESSION = 9
_OPAQUE = 255


def tile(image: NDArray[np.uint8]) -> dict[str, Any]:
    """One picture.

    Args:
        image: (H, W, C) uint8; of channels that are neither grey nor RGB the first is shown.

    Returns:
        png: base64. size: [height, width] in pixels.
    """
    pixels = _shrunk(image)
    return {"png": _png(pixels), "size": [pixels.shape[0], pixels.shape[1]]}


def sheet(images: NDArray[np.uint8], columns: int) -> dict[str, Any]:
    """Pictures in rows of `columns`, filled from the left; cells left over are see-through.

    Args:
        images: (n, H, W, C) uint8, n >= 1.
        columns: tiles in a row.

    Returns:
        png: base64, grey or RGB with alpha. columns, rows: of tiles. size: [height, width] of a tile. gap: pixels
        between tiles; there is none around them.
    """
    tiles = [_shrunk(image) for image in images]
    height, width, channels = tiles[0].shape
    rows, gap = -(-len(tiles) // columns), max(1, width // 14)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels + 1), np.uint8)
    for position, pixels in enumerate(tiles):
        top, left = (position // columns) * (height + gap), (position % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :channels] = pixels
        canvas[top : top + height, left : left + width, channels] = _OPAQUE
    return {"png": _png(canvas), "columns": columns, "rows": rows, "size": [height, width], "gap": gap}


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, C) to (h, w, 1 or 3), at most LARGEST_TILE pixels a side."""
    if image.shape[2] != 3:
        image = image[..., :1]
    height, width, channels = image.shape
    if max(height, width) <= LARGEST_TILE:
        return image
    factor = LARGEST_TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = np.asarray(_picture(image).resize(size, Image.Resampling.BOX), np.uint8)
    return smaller.reshape(size[1], size[0], channels)  # (h, w) or (h, w, 3) -> (h, w, C)


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _png(pixels: NDArray[np.uint8]) -> str:
    """Base64 of a PNG: 1 channel grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha."""
    stream = io.BytesIO()
    _picture(pixels).save(stream, format="PNG", compress_level=_COMPRESSION)
    return base64.b64encode(stream.getvalue()).decode("ascii")


# FOLDED FROM service.evaluation.report.pictures:
# What a figure is: a named function of the evidence that leaves JSON, so that it can be a step of a job.


FigureData = dict[str, Any]
"""JSON: text, numbers without NaN, lists, and pictures as base64 of PNG."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: names it, lower case with dashes.
        stage: what people are told while it is made.
        needs: panels that must have been asked for; without them it is left out.
        compute: a few seconds at most; the same evidence gives the same JSON, to the last byte on one machine.
        restricted: it shows training rows, which only callers with a grant of their own may see.
    """

    name: str
    stage: str
    needs: frozenset[Panel]
    compute: Callable[[Evidence], FigureData]
    restricted: bool = False


def finite(value: float) -> float | None:
    """The number as JSON holds it; None: it is not finite."""
    return float(value) if math.isfinite(value) else None


def read_classes(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class the classifier reads: (n, classes) -> (n,) int64."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def shown_classes(evidence: Evidence) -> tuple[str, NDArray[np.int64]]:
    """By which class samples are sorted for people: "asked", or for unconditional models "read"; and (n,) int64."""
    if evidence.samples.labels is not None:
        return "asked", evidence.samples.labels
    return "read", read_classes(evidence.samples.probabilities)
