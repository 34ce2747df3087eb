"""Products of uint8 rows, exactly: what distances between pictures are made of.

Pixels enter, whole numbers leave, the same on every processor. Products are taken on uint8 pixels less 128, so that one
is at most 2^14 in size, and a sum of 1024 of them, in any order, a whole number that float32 holds exactly; of longer
rows, 1024 pixels at a time are multiplied, and summed as integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Integers", "centred_pixels", "exact_products", "exact_squares"]

_EXACT_PIXELS = 1024  # products of at most 2^14 that sum to at most 2^24
_INT32_PIXELS = 1 << 14

Float32s = NDArray[np.float32]
Integers = NDArray[np.signedinteger[Any]]


def centred_pixels(images: NDArray[np.uint8]) -> Float32s:
    """(n, ...) uint8 to (n, D) float32 whole numbers, -128 to 127."""
    pixels = images.reshape(len(images), -1).astype(np.float32)  # (n, H, W, C) -> (n, D)
    pixels -= np.float32(128)
    return pixels


def exact_products(a: Float32s, b: Float32s) -> Integers:
    """All products of rows of a (m, D) with rows of b (n, D), both of `centred_pixels`: (m, n)."""
    total = (a[:, :_EXACT_PIXELS] @ b[:, :_EXACT_PIXELS].T).astype(_whole(a.shape[1]))
    for first in range(_EXACT_PIXELS, a.shape[1], _EXACT_PIXELS):
        part = slice(first, first + _EXACT_PIXELS)
        total += (a[:, part] @ b[:, part].T).astype(total.dtype)
    return total


def exact_squares(a: Float32s) -> Integers:
    """The squared length of each row of a (n, D), of `centred_pixels`: (n,)."""
    total = np.zeros(len(a), _whole(a.shape[1]))
    for first in range(0, a.shape[1], _EXACT_PIXELS):
        part = a[:, first : first + _EXACT_PIXELS]
        total += np.einsum("ij,ij->i", part, part).astype(total.dtype)
    return total


def _whole(pixels: int) -> type[np.signedinteger[Any]]:
    """Integers that hold any squared distance, of at most 2^16 a pixel, and what is summed on the way to it."""
    return np.int32 if pixels <= _INT32_PIXELS else np.int64
