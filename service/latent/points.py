"""Points of a latent space: drawn around a mean, on a line between two, or along a direction.

Every function computes in float64 and rounds once to float32.

Source: White, "Sampling generative networks", 2016, section 2.1 (spherical interpolation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream

__all__ = ["between", "draw_around", "draw_posterior", "walk"]

Float32s = NDArray[np.float32]
_PARALLEL = 1e-6  # the sine of an angle below which a spherical line is straight


def draw_posterior(mean: Float32s, spread: Float32s, seed: int, indices: NDArray[np.uint64]) -> Float32s:
    """Draw z = mean + spread · ε for rows of (n, latent_dim), ε of N(0, 1) at (seed, each index), stream LATENT."""
    noise = _noise(seed, indices, mean.shape[1])
    return _rounded(mean.astype(np.float64) + spread.astype(np.float64) * noise)


def draw_around(mean: Float32s, scale: float, seed: int, indices: NDArray[np.uint64]) -> Float32s:
    """Draw z = mean + scale · ε for rows of (n, latent_dim), ε of N(0, 1) at (seed, each index), stream LATENT."""
    return _rounded(mean.astype(np.float64) + scale * _noise(seed, indices, mean.shape[1]))


def between(first: Float32s, second: Float32s, shares: NDArray[np.float64], *, spherical: bool) -> Float32s:
    """Compute points on the lines from `first` to `second`, rows of (n, latent_dim) each.

    Args:
        first: where lines start.
        second: where they end.
        shares: (n,), the place on each line: 0 is the start, 1 the end.
        spherical: turn from one direction to the other, at an even rate, while the norm changes linearly; straight
            where the directions are parallel, opposite, or undefined.
    """
    a, b, t = first.astype(np.float64), second.astype(np.float64), shares[:, None]
    straight = (1 - t) * a + t * b
    if not spherical:
        return np.asarray(straight, np.float32)
    norm_a, norm_b = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1, keepdims=True)  # (n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = a / norm_a, b / norm_b
        # Accurate near 0 and π, where the arc cosine of u · v is not.
        angle = 2 * np.arctan2(*(np.linalg.norm(each, axis=1, keepdims=True) for each in (u - v, u + v)))
        sine = np.sin(angle)
        arc = ((1 - t) * norm_a + t * norm_b) * (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / sine
    return np.asarray(np.where(sine > _PARALLEL, arc, straight), np.float32)  # NaN without a direction


def walk(mean: Float32s, direction: NDArray[np.float64], amounts: NDArray[np.float64]) -> Float32s:
    """Compute z = mean + amount · direction for rows of (n, latent_dim) and amounts (n,)."""
    return _rounded(mean.astype(np.float64) + amounts[:, None] * direction)


def _rounded(values: NDArray[np.float64]) -> Float32s:
    """Round to float32; what is beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def _noise(seed: int, indices: NDArray[np.uint64], latent_dim: int) -> NDArray[np.float64]:
    addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
    return addresses.normals(Stream.LATENT, latent_dim).astype(np.float64)
