"""Pixel conversion between a model's floats and bytes; nothing else converts them.

Floats are in the card's value range [a, b], bytes in 0 to 255. Every step is an exactly rounded float32 operation, so
equal floats give equal bytes on every processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Float32s", "Uint8s", "Values", "find_finite_rows", "find_rows_within", "floats_to_uint8", "uint8_to_floats",
]  # fmt: skip

Float32s = NDArray[np.float32]
Uint8s = NDArray[np.uint8]
Values = Float32s | Uint8s

_LEVELS = np.float32(255)
_SLACK = 1e-5  # of the range's width: the tolerance for rounding at its ends


def floats_to_uint8(images: Float32s, value_range: tuple[float, float]) -> Uint8s:
    """Round floats to bytes: round(255 (x - a) / (b - a)), clipped to 0 to 255; round half to even.

    Args:
        images: any shape, finite.
        value_range: a and b.

    Returns:
        The same shape, uint8.
    """
    low, high = (np.float32(end) for end in value_range)
    levels = np.rint(_LEVELS * (images - low) / (high - low))
    return np.asarray(np.clip(levels, np.float32(0), _LEVELS), np.uint8)


def uint8_to_floats(images: Uint8s, value_range: tuple[float, float]) -> Float32s:
    """Invert `floats_to_uint8`: a + (b - a) u / 255, in float32."""
    low, high = (np.float32(end) for end in value_range)
    return np.asarray(low + (high - low) * (images.astype(np.float32) / _LEVELS), np.float32)


def find_finite_rows(values: Values) -> NDArray[np.bool_]:
    """Return which rows of (B, ...) are all finite; (B,)."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))  # (B, ...) -> (B,)


def find_rows_within(images: Values, value_range: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which rows of (B, ...) are within a range, up to rounding; (B,). Rows with NaN do not."""
    low, high = value_range
    slack = _SLACK * (high - low)
    within = (images >= low - slack) & (images <= high + slack)
    return np.asarray(within.reshape(len(images), -1).all(axis=1))  # (B, ...) -> (B,)
