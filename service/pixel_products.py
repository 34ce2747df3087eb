"""Exact inner products of uint8 images, from which distances between images are computed, and keys of equal images.

Pixels enter, integers leave, the same on every processor. Products are of pixels minus 128, so that one is at most 2^14
in size, and a sum of 1024 of them, in any order, is an integer that float32 represents exactly. Longer rows are
multiplied in parts of 1024 pixels, whose products are summed as integers.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Integers", "centred_pixels", "exact_keys", "exact_products", "exact_squares"]

_EXACT_PIXELS = 1024  # products of at most 2^14 that sum to at most 2^24
_INT32_PIXELS = 1 << 14

Float32s = NDArray[np.float32]
Integers = NDArray[np.signedinteger[Any]]


def exact_keys(images: NDArray[np.uint8]) -> NDArray[np.void]:
    """Hash each image's bytes with BLAKE2b, 128 bits: (n, ...) uint8 to (n,) keys that are equal where images are.

    Two different images among 10^9 share one with a chance of about 10^-21.
    """
    digests = b"".join(blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in images)
    return np.frombuffer(digests, "V16")


def centred_pixels(images: NDArray[np.uint8]) -> Float32s:
    """Convert (n, ...) uint8 to (n, D) float32 integers, -128 to 127."""
    pixels = images.reshape(len(images), math.prod(images.shape[1:])).astype(np.float32)  # (n, H, W, C) -> (n, D)
    pixels -= np.float32(128)
    return pixels


def exact_products(a: Float32s, b: Float32s) -> Integers:
    """Return the (m, n) inner products of rows of a (m, D) and b (n, D), both of `centred_pixels`."""
    total = (a[:, :_EXACT_PIXELS] @ b[:, :_EXACT_PIXELS].T).astype(_integer_type(a.shape[1]))
    for first in range(_EXACT_PIXELS, a.shape[1], _EXACT_PIXELS):
        part = slice(first, first + _EXACT_PIXELS)
        total += (a[:, part] @ b[:, part].T).astype(total.dtype)
    return total


def exact_squares(a: Float32s) -> Integers:
    """Return the (n,) squared lengths of rows of a (n, D), of `centred_pixels`."""
    total = np.zeros(len(a), _integer_type(a.shape[1]))
    for first in range(0, a.shape[1], _EXACT_PIXELS):
        part = a[:, first : first + _EXACT_PIXELS]
        total += np.einsum("ij,ij->i", part, part).astype(total.dtype)
    return total


def _integer_type(pixels: int) -> type[np.signedinteger[Any]]:
    """Choose integers that represent any squared distance, of at most 2^16 a pixel, and its partial sums."""
    return np.int32 if pixels <= _INT32_PIXELS else np.int64
