"""Sliced Wasserstein distance: rows projected on random directions, where optimal transport is sorting.

It needs no trained features, so it is computed from pixels: it sees what a classifier's features were trained to ignore
(contrast, blur, noise). Directions depend on the seed and on their number alone.

Sources: Rabin et al., "Wasserstein barycenter and its application to texture mixing", 2011; Bonneel et al., "Sliced and
Radon Wasserstein barycenters of measures", 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, clip, jackknife_interval
from service.evaluation.statistics.rows import Float64s, check_rows, float64_chunks

__all__ = ["SlicedReference", "estimate_sliced_wasserstein", "sliced_wasserstein"]


@dataclass(frozen=True, eq=False)
class SlicedReference:
    """Rows to compare with, projected on the directions.

    Attributes:
        directions: (D, P) float64, of length 1.
        projected: (P, m) float64, each row ascending.
        whole_numbers: whether rows are uint8, and so were scaled to [0, 1].
    """

    directions: Float64s
    projected: Float64s
    whole_numbers: bool

    @classmethod
    def of(cls, rows: NDArray[Any], seed: int, projections: int = 256) -> Self:
        """Project rows on random directions.

        Args:
            rows: (m, D) uint8, scaled to [0, 1], or floats, taken as they are; m at least 1.
            seed: of the directions.
            projections: how many directions.
        """
        check_rows(rows)
        # Not the stream of latents: samples of the same seed are made from those.
        normals = Addresses.of_range(seed, 0, projections).normals(Stream.RESAMPLE, rows.shape[1])  # (P, D)
        directions = normals.T.astype(np.float64)
        directions /= np.sqrt(np.sum(directions**2, axis=0))
        return cls(directions, np.sort(_project(rows, directions), axis=1), rows.dtype == np.uint8)


def sliced_wasserstein(rows: NDArray[Any], reference: SlicedReference) -> float:
    """Compute the value of `estimate_sliced_wasserstein` alone, at a tenth of the cost."""
    return _distance(np.sort(_projections(rows, reference), axis=1), reference.projected)


def estimate_sliced_wasserstein(rows: NDArray[Any], reference: SlicedReference, blocks: int = BLOCKS) -> Estimate:
    """Estimate the root of the mean over directions of the squared 2-Wasserstein distance, with its jackknife interval.

    In the units of the rows: between two single rows at distance r it is about r/√D. Sets of unequal sizes are compared
    exactly, by their quantile functions. The reference is held fixed.

    Args:
        rows: (n, D) of the reference's kind and width; n at least 1.
        reference: of other rows.
        blocks: of the jackknife.

    Returns:
        The distance, and the interval of its expectation at n rows; no interval for a single row.
    """
    members = block_rows(len(rows), blocks)
    if len(members) < 2:
        return Estimate(sliced_wasserstein(rows, reference))
    projected = _projections(rows, reference)
    order = np.argsort(projected, axis=1, kind="stable")
    ascending = np.take_along_axis(projected, order, axis=1)
    value = _distance(ascending, reference.projected)
    block_of = np.empty(len(rows), dtype=np.int64)
    for number, block in enumerate(members):
        block_of[block] = number
    owner = block_of[order]  # (P, n): the block of each sorted value
    left_out = [
        _distance(ascending[owner != number].reshape(len(ascending), -1), reference.projected)
        for number in range(len(members))
    ]
    sizes = np.array([len(block) for block in members])
    return clip(Estimate(value, jackknife_interval(value, np.array(left_out), sizes)), 0)


def _projections(rows: NDArray[Any], reference: SlicedReference) -> Float64s:
    """Check rows (n, D) and project them on the reference's directions: (P, n)."""
    check_rows(rows)
    if rows.shape[1] != len(reference.directions) or (rows.dtype == np.uint8) != reference.whole_numbers:
        raise ValueError("rows must have the width and the kind (uint8 or floats) of the reference's rows")
    return _project(rows, reference.directions)


def _project(rows: NDArray[Any], directions: Float64s) -> Float64s:
    """(n, D) -> (P, n) float64, contiguous."""
    scale = 255.0 if rows.dtype == np.uint8 else 1.0
    return np.concatenate([directions.T @ (chunk / scale).T for chunk in float64_chunks(rows)], axis=1)


def _distance(a: Float64s, b: Float64s) -> float:
    """Compare (P, n) with (P, m), both ascending: quantile functions are steps, so the integral is a sum over steps."""
    n, m = a.shape[1], b.shape[1]
    if n == m:
        return math.sqrt(float(np.mean((a - b) ** 2)))
    # Where either function steps, in units of 1/(n m): whole numbers, so that no step is lost to rounding.
    ends = np.union1d(np.arange(1, n + 1, dtype=np.int64) * m, np.arange(1, m + 1, dtype=np.int64) * n)
    starts = np.concatenate([[0], ends[:-1]])
    of_a, of_b, widths = starts // m, starts // n, (ends - starts) / (n * m)
    squared = sum(float((x[of_a] - y[of_b]) ** 2 @ widths) for x, y in zip(a, b, strict=True))
    return math.sqrt(squared / len(a))
