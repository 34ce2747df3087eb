"""The inception score: how sure a classifier is of each sample, and how evenly the classes come.

It looks at no real row: a generator that draws one good picture of each class scores best. The highest value is the
number of classes, C; of n samples, a perfect generator scores about C·exp(−(C − 1)/(2n)).

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
from service.evaluation.statistics.rows import check_rows

__all__ = ["ProbabilitySums", "estimate_inception_score", "inception_score"]

_OFF = 1e-3  # how far from 1 a row of float32 (or of rounded) probabilities may sum


@dataclass(frozen=True, eq=False)
class ProbabilitySums:
    """Sums over rows of class probabilities; a mergeable state.

    Attributes:
        count: n.
        total: (C,) float64, Σ p.
        negative_entropy: Σ over rows of Σ p log p, in nats.
    """

    count: int
    total: NDArray[np.float64]
    negative_entropy: float

    @classmethod
    def of(cls, probabilities: NDArray[Any]) -> Self:
        """Sum over rows.

        Args:
            probabilities: (n, C) float32 or float64, each row of numbers not below 0 that sum to 1; n may be 0.

        Raises:
            ValueError: rows that are not finite, or not probabilities.
        """
        return cls._of_normalised(_normalised(probabilities))

    @classmethod
    def _of_normalised(cls, p: NDArray[np.float64]) -> Self:
        return cls(len(p), p.sum(axis=0), float(np.sum(xlogy(p, p))))

    def merge(self, other: Self) -> Self:
        """The sums over the rows of both.

        Raises:
            ValueError: rows of another number of classes.
        """
        if len(self.total) != len(other.total):
            raise ValueError(f"rows of {len(self.total)} and of {len(other.total)} classes do not merge")
        negative_entropy = self.negative_entropy + other.negative_entropy
        return type(self)(self.count + other.count, self.total + other.total, negative_entropy)


def inception_score(state: ProbabilitySums) -> float:
    """The score, exp E KL(p(y|x) ‖ p(y)), in [1, C]; p(y) is the mean over all rows: one split.

    Raises:
        ValueError: there are no rows.
    """
    if not state.count:
        raise ValueError("an inception score takes at least 1 row")
    marginal = state.total / state.count
    information = state.negative_entropy / state.count - float(np.sum(xlogy(marginal, marginal)))
    return float(min(len(marginal), math.exp(max(0.0, information))))


def estimate_inception_score(probabilities: NDArray[Any], blocks: int = BLOCKS) -> Estimate:
    """The inception score of rows.

    Args:
        probabilities: (n, C) float32 or float64, each row of numbers not below 0 that sum to 1; n at least 1.
        blocks: of the jackknife; 1: the value alone, for draws that show their spread by themselves.

    Returns:
        Its interval speaks of the expectation at n rows (jackknife over blocks of rows); none for a single row.

    Raises:
        ValueError: no rows, rows that are not finite, or not probabilities.
    """
    p = _normalised(probabilities, least=1)
    states = [ProbabilitySums._of_normalised(p[rows]) for rows in block_rows(len(p), blocks)]
    return clip(estimate_from_blocks(states, inception_score, least=1), 1, p.shape[1])


def _normalised(probabilities: NDArray[Any], least: int = 0) -> NDArray[np.float64]:
    """(n, C), each row exactly 1 in all, as rounded ones are not; refuses rows that are no probabilities."""
    check_rows(probabilities, least)
    p = probabilities.astype(np.float64)
    sums = p.sum(axis=1, keepdims=True)
    wrong = int(np.count_nonzero((p < 0).any(axis=1) | (np.abs(sums[:, 0] - 1) > _OFF)))
    if wrong:
        raise ValueError(f"{wrong} of {len(p)} rows are not probabilities: not below 0, and 1 in all")
    p /= sums
    return p
