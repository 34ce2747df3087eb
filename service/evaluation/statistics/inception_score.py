"""Inception score: how confident a classifier is about each sample, and how evenly the classes are represented.

    IS = exp E KL(p(y|x) ‖ p(y))

It uses no real rows: a generator that draws one good image of each class scores best. The highest value is the number
of classes, C; with n samples, a perfect generator scores about C·exp(−(C − 1)/(2n)).

Sources: Salimans et al., "Improved techniques for training GANs", 2016, section 4; Barratt and Sharma, "A note on the
inception score", 2018 (one split, not ten).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, clip, estimate_from_blocks
from service.evaluation.statistics.rows import Float64s, check_rows

__all__ = ["ProbabilitySums", "estimate_inception_score", "inception_score"]

_SUM_TOLERANCE = 1e-3  # how far from 1 a row of float32 (or of rounded) probabilities may sum


def estimate_inception_score(probabilities: NDArray[Any], blocks: int = BLOCKS) -> Estimate:
    """Estimate the inception score with its jackknife interval.

    Args:
        probabilities: (n, C) float32 or float64, each row of numbers not below 0 that sum to 1; n at least 1.
        blocks: of the jackknife.

    Returns:
        The score, and the interval of its expectation at n rows; no interval for a single row.
    """
    p = _normalised(probabilities, least=1)
    states = [ProbabilitySums._of_normalised(p[rows]) for rows in block_rows(len(p), blocks)]
    return clip(estimate_from_blocks(states, inception_score, least=1), 1, p.shape[1])


@dataclass(frozen=True, eq=False)
class ProbabilitySums:
    """Sums over rows of class probabilities; mergeable.

    Attributes:
        count: n.
        total: (C,) float64, Σ p.
        negative_entropy: Σ over rows of Σ p log p, in nats.
    """

    count: int
    total: Float64s
    negative_entropy: float

    @classmethod
    def of(cls, probabilities: NDArray[Any]) -> Self:
        """Sum over rows of probabilities (n, C), as `estimate_inception_score` takes them; n may be 0."""
        return cls._of_normalised(_normalised(probabilities))

    @classmethod
    def _of_normalised(cls, p: Float64s) -> Self:
        return cls(len(p), p.sum(axis=0), float(np.sum(xlogy(p, p))))

    def merge(self, other: Self) -> Self:
        """Return the sums over the rows of both."""
        if len(self.total) != len(other.total):
            raise ValueError(f"rows of {len(self.total)} and of {len(other.total)} classes do not merge")
        negative_entropy = self.negative_entropy + other.negative_entropy
        return type(self)(self.count + other.count, self.total + other.total, negative_entropy)


def inception_score(state: ProbabilitySums) -> float:
    """Compute exp E KL(p(y|x) ‖ p(y)), in [1, C], of at least 1 row; p(y) is the mean over all rows: one split."""
    if not state.count:
        raise ValueError("an inception score takes at least 1 row")
    marginal = state.total / state.count
    information = state.negative_entropy / state.count - float(np.sum(xlogy(marginal, marginal)))
    return float(min(len(marginal), math.exp(max(0.0, information))))


def _normalised(probabilities: NDArray[Any], least: int = 0) -> Float64s:
    """Check probabilities (n, C), and divide each row by its sum, which rounding moves away from 1."""
    check_rows(probabilities, least)
    p = probabilities.astype(np.float64)
    sums = p.sum(axis=1, keepdims=True)
    wrong = int(np.count_nonzero((p < 0).any(axis=1) | (np.abs(sums[:, 0] - 1) > _SUM_TOLERANCE)))
    if wrong:
        raise ValueError(f"{wrong} of {len(p)} rows are not probabilities: numbers not below 0 that sum to 1")
    p /= sums
    return p
