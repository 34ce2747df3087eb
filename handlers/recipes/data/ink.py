"""Ink on paper: a known map between two kinds of pictures, with which a translator that saw no pairs is measured.

A digit's strokes become dark and wide: every pixel takes the lightest of the 3×3 around it, then light and dark are
exchanged. Exchanging them back and thinning the strokes gives a digit whose narrow gaps are closed, which a classifier
of digits reads; it has never seen wide strokes.
"""

from __future__ import annotations

from torch import Tensor, nn

from handlers.recipes.data.load import Split

__all__ = ["TO_DIGIT", "TO_INK", "invert", "read_ink", "split_unpaired", "write_in_ink"]

TO_INK, TO_DIGIT = 0, 1
"""The labels of both directions, in the order of a card's classes."""

_BRUSH = 3


def write_in_ink(digits: Tensor) -> Tensor:
    """Turn light strokes, (B, C, H, W) in [0, 1], into wider dark ones."""
    return invert(nn.functional.max_pool2d(digits, _BRUSH, stride=1, padding=_BRUSH // 2))


def read_ink(ink: Tensor) -> Tensor:
    """Turn ink, (B, C, H, W) in [0, 1], into light strokes of a digit's width: each pixel takes the darkest of 3×3."""
    return 1 - nn.functional.max_pool2d(ink, _BRUSH, stride=1, padding=_BRUSH // 2)


def invert(images: Tensor) -> Tensor:
    """Exchange light and dark of pictures in [0, 1]."""
    return 1 - images


def split_unpaired(rows: Split) -> tuple[Tensor, Tensor]:
    """Split rows into digits and, of the other half of the rows, ink: no digit is in both."""
    return rows.images[::2], write_in_ink(rows.images[1::2])
