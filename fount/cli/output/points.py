"""Pictures of points on the line or in the plane: how densely they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["points_to_picture"]

_CELLS, _SCALE = 80, 4  # cells of a side, and pixels of a cell's side


def points_to_picture(points: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float64]:
    """Count points in cells: a histogram of points on the line, or the square root of the density in the plane.

    Args:
        points: (N, 1) or (N, 2); those outside the range or not finite are left out.
        value_range: bounds of every coordinate.

    Returns:
        (320, 320) in [0, 1], white where points are; the second coordinate rises upwards.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    edges = [np.linspace(*value_range, _CELLS + 1)] * points.shape[1]
    counts, _ = np.histogramdd(finite, edges)
    shares = counts / max(1.0, counts.max())
    if shares.ndim == 1:
        heights = np.repeat(shares, _SCALE) * _CELLS * _SCALE
        return np.asarray(np.arange(_CELLS * _SCALE)[::-1, None] < heights, np.float64)
    return np.kron(np.sqrt(shares).T[::-1], np.ones((_SCALE, _SCALE)))
