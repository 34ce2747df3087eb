"""Moments of features, and the Fréchet distance between Gaussians that have them (FID).

Features enter shard by shard; `Moments` merge into those of all rows, whatever the split. The distance has a bias that
falls with the number of rows (about (d²/4 + d)/n for whitened features), so a value means nothing without the value of
real rows of the same number.

Sources: Heusel et al., "GANs trained by a two time-scale update rule", 2017, equation 6; Chan, Golub, LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, clip, estimate_from_blocks
from service.evaluation.statistics.rows import check_rows, stretches

__all__ = ["Moments", "estimate_fid", "frechet_distance"]

Float64s = NDArray[np.float64]

_EVERY = 16  # rows: their mean is taken off before the product


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of some rows; a mergeable state.

    Attributes:
        count: n.
        mean: (d,) float64; zeros of no rows.
        scatter: (d, d) float64, the sum of (x - mean)(x - mean)ᵀ.
    """

    count: int
    mean: Float64s
    scatter: Float64s

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Take the moments of rows.

        Args:
            features: (n, d) float32 or float64; n may be 0.

        Raises:
            ValueError: not two axes, or rows that are not finite.
        """
        check_rows(features, least=0)
        width = features.shape[1]
        empty = cls(0, np.zeros(width), np.zeros((width, width)))
        return reduce(cls.merge, (cls._of_stretch(part) for part in stretches(features)), empty)

    @classmethod
    def _of_stretch(cls, part: Float64s) -> Self:
        near = part[::_EVERY].mean(axis=0)  # near the mean is enough for the product to lose nothing
        part -= near
        step = np.ones(len(part)) @ part / len(part)
        return cls(len(part), near + step, part.T @ part - np.outer(step, step * len(part)))

    def merge(self, other: Self) -> Self:
        """The moments of the rows of both.

        Raises:
            ValueError: rows of another width.

        Source: Chan et al. 1979, equation 2.1, for vectors.
        """
        if len(self.mean) != len(other.mean):
            raise ValueError(f"rows of {len(self.mean)} and of {len(other.mean)} features do not merge")
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return type(self)(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> Float64s:
        """(d, d) float64, divided by n - 1.

        Raises:
            ValueError: fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a covariance takes at least 2 rows, there are {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), at least 0.

    Covariances may be singular: of fewer rows than features, or with features that never change. The value is good to
    about 1e-8 of the covariances' traces.

    Raises:
        ValueError: fewer than two rows on either side, or another width.
    """
    return _distance(a, b, _root(b.covariance))


def estimate_fid(features: NDArray[Any], reference: Moments, blocks: int = BLOCKS) -> Estimate:
    """The Fréchet distance of rows from a reference, which is taken as it is.

    Args:
        features: (n, d) float32 or float64; n at least 2.
        reference: of other rows.
        blocks: of the jackknife; 1: the value alone, for draws that show their spread by themselves.

    Returns:
        Its interval speaks of the expectation at n rows (jackknife over blocks of rows); none for fewer than 3 rows.

    Raises:
        ValueError: fewer than two rows on either side, rows that are not finite, or another width.
    """
    check_rows(features, least=2)
    root = _root(reference.covariance)
    states = [Moments.of(features[rows]) for rows in block_rows(len(features), blocks)]
    return clip(estimate_from_blocks(states, lambda state: _distance(state, reference, root), least=2), 0)


def _root(covariance: Float64s) -> Float64s:
    """(d, r) R with R Rᵀ = Σ; r is the rank, so that directions of no variance add no rounding."""
    values, vectors = eigh(covariance)
    kept = values > _noise(values)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _distance(a: Moments, b: Moments, root_b: Float64s) -> float:
    """The distance, with Tr (Σ₁Σ₂)^½ as the sum of roots of the eigenvalues of Rᵀ Σ₁ R, which is symmetric."""
    if len(a.mean) != len(b.mean):
        raise ValueError(f"rows of {len(a.mean)} and of {len(b.mean)} features are not compared")
    covariance = a.covariance
    traces = np.trace(covariance) + np.trace(b.covariance)
    shared = root_b.T @ covariance @ root_b
    values = eigvalsh(shared) if shared.size else np.zeros(0)
    kept = values[values > _noise(values)]
    return max(0.0, float(np.sum((a.mean - b.mean) ** 2) + traces - 2 * np.sum(np.sqrt(kept))))


def _noise(values: Float64s) -> float:
    """Below this, an eigenvalue is rounding: its root would not be."""
    return float(len(values) * np.finfo(np.float64).eps * values.max(initial=0.0))
