"""Vendi score: the effective number of different rows in a set.

It is the exponential of the entropy of the eigenvalues of K/n, K the (n, n) cosine similarities of the features. 1: all
rows have the same direction; n: all are orthogonal. It needs no real rows, but grows with n and with the number of
features, so it is compared with that of as many real rows. Of order 2 it is n²/‖K‖².

The eigenvalues are computed from the (d, d) matrix Σ x xᵀ/n of unit vectors, which has the same ones as K/n and merges
by addition.

Sources: Friedman and Dieng, "The Vendi score", 2023; Pasarkar and Dieng, "Cousins of the Vendi score", 2024 (orders).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.linalg import eigvalsh  # not scipy's: it holds the interpreter lock, for seconds at 2048 features
from numpy.typing import NDArray

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, clip, estimate_from_blocks
from service.evaluation.statistics.rows import Float64s, check_rows, float64_chunks

__all__ = ["SecondMoments", "estimate_vendi", "vendi_score"]


def estimate_vendi(features: NDArray[Any], order: float = 1.0, blocks: int = BLOCKS) -> Estimate:
    """Estimate the Vendi score with its jackknife interval.

    Args:
        features: (n, d) float32 or float64; n at least 1.
        order: as of `vendi_score`.
        blocks: of the jackknife.

    Returns:
        The score, and the interval of its expectation at n rows; no interval for a single row.
    """
    check_rows(features)
    states = [SecondMoments.of(features[rows]) for rows in block_rows(len(features), blocks)]
    return clip(estimate_from_blocks(states, lambda state: vendi_score(state, order), least=1), 1, len(features))


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Second moments of rows scaled to length 1; mergeable.

    Attributes:
        count: n.
        total: (d, d) float64, Σ x xᵀ over rows that are not zero.
        zeros: rows of nothing but zeros. They have no direction; they count as equal to each other, and as orthogonal
            to every other row.
    """

    count: int
    total: Float64s
    zeros: int

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Compute the second moments of features (n, d), float32 or float64, of any length; n may be 0."""
        check_rows(features, least=0)
        empty = cls(0, np.zeros((features.shape[1],) * 2), 0)
        return reduce(cls.merge, (cls._of_chunk(chunk) for chunk in float64_chunks(features)), empty)

    @classmethod
    def _of_chunk(cls, chunk: Float64s) -> Self:
        largest = np.abs(chunk).max(axis=1, keepdims=True)
        directions = chunk[largest[:, 0] > 0] / largest[largest[:, 0] > 0]  # squares of tiny numbers would be 0
        directions /= np.sqrt(np.sum(directions**2, axis=1, keepdims=True))
        return cls(len(chunk), directions.T @ directions, len(chunk) - len(directions))

    def merge(self, other: Self) -> Self:
        """Return the second moments of the rows of both."""
        if self.total.shape != other.total.shape:
            raise ValueError(f"rows of {len(self.total)} and of {len(other.total)} features do not merge")
        return type(self)(self.count + other.count, self.total + other.total, self.zeros + other.zeros)


def vendi_score(state: SecondMoments, order: float = 1.0) -> float:
    """Compute the effective number of different rows, in [1, n].

    Args:
        state: of at least one row.
        order: of the entropy, above 0: 1 is Shannon's, 2 depends on pairs, infinity on the largest share alone.
    """
    if not state.count or not order > 0:
        raise ValueError(f"a Vendi score takes at least 1 row and an order above 0, got {state.count} and {order}")
    shares = np.append(eigvalsh(state.total), state.zeros) / state.count
    shares = shares[shares > 0]
    if order == 1:
        entropy = -np.sum(shares * np.log(shares))
    elif math.isinf(order):
        entropy = -np.log(shares.max())
    else:
        entropy = np.log(np.sum(shares**order)) / (1 - order)
    return float(np.clip(np.exp(entropy), 1, state.count))
