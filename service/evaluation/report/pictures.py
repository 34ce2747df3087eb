"""Samples as PNG: single tiles, and sheets of tiles with see-through gaps. Pages scale them up; files stay small."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["LARGEST_TILE", "sheet", "tile"]

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
