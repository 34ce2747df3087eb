"""Draws with replacement and Poisson weights: the two ways to bootstrap, read at addresses.

Sources: Efron 1979 (bootstrap); Oza and Russell, "Online bagging and boosting", AISTATS 2001 (Poisson weights).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream

__all__ = ["draw", "poisson_weights"]

_STEP = 1 << 16  # rows looked at together
_POISSON_BLOCK = 1  # of the stream `resample`; block 0 is for draws with replacement
_E_INVERSE = 0.36787944117144233


def poisson_weights(seed: int, source_rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Weights of rows of a split, by inversion of Poisson(1).

    Args:
        seed: of the plan.
        source_rows: (n,) which rows.

    Returns:
        (n,) uint32; 0 with probability 1/e.
    """
    weights = [np.empty(0, np.uint32)]
    for at in range(0, len(source_rows), _STEP):
        indices = source_rows[at : at + _STEP].astype(np.uint64)
        addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
        uniform = addresses.uniforms(Stream.RESAMPLE, 1, _POISSON_BLOCK)[:, 0]
        weights.append(np.searchsorted(_POISSON_CUMULATIVE, uniform, side="right").astype(np.uint32))
    return np.concatenate(weights)


def _poisson_cumulative() -> NDArray[np.float64]:
    """P(weight <= k), by exactly rounded operations; beyond the last, 2^-53 is all that is left."""
    term = total = _E_INVERSE
    cumulative = [total]
    for k in range(1, 18):
        term /= k
        total += term
        cumulative.append(total)
    return np.array(cumulative)


_POISSON_CUMULATIVE = _poisson_cumulative()


def draw(seed: int, rows: NDArray[np.uint64], sizes: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Draw one of 0 to sizes - 1 for each row, at its own address."""
    addresses = Addresses(seeds=np.full(len(rows), seed, np.uint64), indices=rows)
    uniform = addresses.uniforms(Stream.RESAMPLE, 1)[:, 0]
    top = np.asarray(sizes, np.uint64)
    drawn: NDArray[np.uint64] = (uniform * top.astype(np.float64)).astype(np.uint64)
    return np.asarray(np.minimum(drawn, top - np.uint64(1)), np.uint64)
