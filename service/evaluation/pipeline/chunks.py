"""Chunk boundaries: part of what a result is made from, so they follow from the specification alone."""

from __future__ import annotations

import math

__all__ = ["chunk_rows", "chunks"]

_SAMPLES = 500
_BYTES = 32 << 20


def chunk_rows(image_shape: tuple[int, int, int], most: int = _SAMPLES) -> int:
    """How many images are drawn or read in a step: a few seconds' worth."""
    return max(1, min(most, _BYTES // math.prod(image_shape)))


def chunks(count: int, rows: int) -> list[slice]:
    """Cut `count` rows into runs of `rows`; the last may be shorter."""
    return [slice(first, min(first + rows, count)) for first in range(0, count, rows)]
