"""Fréchet inception distance (FID): `estimate_fid` computes the value and its 95 % interval.

Features become `Moments` (mean and covariance), two `Moments` become the distance of the Gaussians that have them:

    FID = ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)

The interval is the delete-block jackknife of `intervals`: the moments of each of 20 blocks of samples are computed once
and merged, and the distance is computed again without each block. The estimator's bias falls with the number of rows
(about (d²/4 + d)/n for whitened features), so a value means nothing without the value of real rows of the same number;
`panels.realism` computes both.

Sources: Heusel et al., "GANs trained by a two time-scale update rule", 2017, equation 6; Chan, Golub, LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.linalg import eigh, eigvalsh  # not scipy's: it holds the interpreter lock, for seconds at 2048 features
from numpy.typing import NDArray

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, clip, estimate_from_blocks
from service.evaluation.statistics.rows import Float64s, check_rows, float64_chunks

__all__ = ["Moments", "estimate_fid", "frechet_distance"]


_PILOT_STEP = 16  # every 16th row estimates the mean that is subtracted before the product


def estimate_fid(features: NDArray[Any], reference: Moments, blocks: int = BLOCKS) -> Estimate:
    """Estimate the FID of samples from a reference, which is held fixed, with its jackknife interval.

    Args:
        features: (n, d) float32 or float64 of the samples; n at least 2.
        reference: moments of real rows.
        blocks: of the jackknife.

    Returns:
        The distance, and the interval of its expectation at n rows; no interval for fewer than 3 rows.
    """
    check_rows(features, least=2)
    root = _covariance_root(reference.covariance)
    states = [Moments.of(features[rows]) for rows in block_rows(len(features), blocks)]
    return clip(estimate_from_blocks(states, lambda state: _moments_to_fid(state, reference, root), least=2), 0)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), at least 0.

    Covariances may be singular: of fewer rows than features, or with constant features. The value is accurate to about
    1e-8 of the covariances' traces.
    """
    return _moments_to_fid(a, b, _covariance_root(b.covariance))


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of rows of features; mergeable.

    Attributes:
        count: n.
        mean: (d,) float64; zeros for no rows.
        scatter: (d, d) float64, Σ (x − mean)(x − mean)ᵀ.
    """

    count: int
    mean: Float64s
    scatter: Float64s

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Compute the moments of features (n, d), float32 or float64; n may be 0."""
        check_rows(features, least=0)
        width = features.shape[1]
        empty = cls(0, np.zeros(width), np.zeros((width, width)))
        return reduce(cls.merge, (cls._of_chunk(chunk) for chunk in float64_chunks(features)), empty)

    @classmethod
    def _of_chunk(cls, chunk: Float64s) -> Self:
        pilot = chunk[::_PILOT_STEP].mean(axis=0)  # close enough to the mean for the product to lose no digits
        chunk -= pilot
        step = np.ones(len(chunk)) @ chunk / len(chunk)
        return cls(len(chunk), pilot + step, chunk.T @ chunk - np.outer(step, step * len(chunk)))

    def merge(self, other: Self) -> Self:
        """Return the moments of the rows of both (Chan et al. 1979, equation 2.1, for vectors)."""
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
        """(d, d) float64, divided by n − 1; raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance takes at least 2 rows, there are {self.count}")
        return self.scatter / (self.count - 1)


def _covariance_root(covariance: Float64s) -> Float64s:
    """Compute R (d, r) with R Rᵀ = Σ; r is the rank, so that directions without variance add no rounding."""
    values, vectors = eigh(covariance)
    kept = values > _rounding(values)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _moments_to_fid(a: Moments, b: Moments, root_b: Float64s) -> float:
    """Compute the distance; Tr (Σ₁Σ₂)^½ is the sum of roots of the eigenvalues of the symmetric Rᵀ Σ₁ R."""
    if len(a.mean) != len(b.mean):
        raise ValueError(f"rows of {len(a.mean)} and of {len(b.mean)} features are not compared")
    covariance = a.covariance
    traces = np.trace(covariance) + np.trace(b.covariance)
    shared = root_b.T @ covariance @ root_b
    values = np.asarray(eigvalsh(shared), np.float64)
    kept = values[values > _rounding(values)]
    return max(0.0, float(np.sum((a.mean - b.mean) ** 2) + traces - 2 * np.sum(np.sqrt(kept))))


def _rounding(eigenvalues: Float64s) -> float:
    """Return the size up to which an eigenvalue is rounding error, whose root would not be negligible."""
    return float(len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max(initial=0.0))
