"""Kernel inception distance (KID): `estimate_kid` computes the value and its 95 % interval.

KID is the squared maximum mean discrepancy (MMD) of two sets under the cubic kernel k(x, y) = (x·y/d + 1)³. This is the
full-sample unbiased estimator, over all pairs, not a mean over random subsets. It is 0 on average for sets of one
distribution, and may be negative.

With x̂ = (x/√d, 1), the kernel is (x̂·ŷ)³ = ⟨x̂⊗x̂⊗x̂, ŷ⊗ŷ⊗ŷ⟩: sums over pairs are products of sums over rows. Up to
`CUBIC_FEATURES` features a set is summarised by the symmetric tensor Σ x̂⊗x̂⊗x̂, C(d + 3, 3) numbers, which costs n·d³
in place of n²·d. Beyond, rows are kept and the kernel is summed tile by tile; the value is the same. Both summaries
merge into that of all rows, whatever the split.

Sources: Bińkowski et al., "Demystifying MMD GANs", 2018, section 4; Gretton et al., "A kernel two-sample test", 2012,
lemma 6 (the unbiased statistic).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, jackknife_interval
from service.evaluation.statistics.rows import Float64s, check_rows, float64_chunks

__all__ = ["CUBIC_FEATURES", "KernelSums", "estimate_kid", "kid"]


CUBIC_FEATURES = 128
"""Up to so many features, the tensor is cheaper than pairs."""

_TILE = 1024  # rows of a tile of the kernel matrix: 8 MiB


def estimate_kid(features: NDArray[Any], reference: KernelSums, blocks: int = BLOCKS) -> Estimate:
    """Estimate the KID of samples from a reference, which is held fixed, with its jackknife interval.

    Sums over pairs are computed once for each pair of blocks; leaving a block out subtracts its sums.

    Args:
        features: (n, d) float32 or float64 of the samples; n at least 2.
        reference: of real rows.
        blocks: of the jackknife.

    Returns:
        The squared distance, not times 1000, and the interval of its expectation; no interval for fewer than 3 rows.
    """
    check_rows(features, least=2)
    sums = [KernelSums.of(features[rows]) for rows in block_rows(len(features), blocks)]
    sizes = np.array([each.count for each in sums])
    n, m = int(sizes.sum()), reference.count
    within = np.zeros((len(sums), len(sums)))  # sums over pairs of rows of block i and of block j
    for i, block in enumerate(sums):
        within[i, i] = block.within
        for j in range(i):
            within[i, j] = within[j, i] = block.between(sums[j])
    between = np.array([block.between(reference) for block in sums])
    value = _sums_to_kid(n, m, within.sum(), reference.within, between.sum())
    if len(sums) < 2 or n - sizes.max() < 2:
        return Estimate(value)
    left_within = within.sum() - 2 * within.sum(axis=1) + within.diagonal()
    left_between = between.sum() - between
    left_out = [
        _sums_to_kid(int(count), m, inside, reference.within, across)
        for count, inside, across in zip(n - sizes, left_within, left_between, strict=True)
    ]
    return Estimate(value, jackknife_interval(value, np.array(left_out), sizes))


def kid(a: KernelSums, b: KernelSums) -> float:
    """Compute the unbiased squared distance of two sets from all pairs."""
    return _sums_to_kid(a.count, b.count, a.within, b.within, a.between(b))


@dataclass(frozen=True, eq=False)
class KernelSums:
    """What the kernel's sums over pairs need of a set of rows; mergeable.

    Attributes:
        count: n.
        features: d.
        summary: up to `CUBIC_FEATURES` features (C(d + 3, 3),) float64, the entries i ≤ j ≤ k of Σ x̂⊗x̂⊗x̂, each times
            the root of its multiplicity, so that dot products are those of the whole tensors; else the rows, (n, d).
        within: Σ k(x, y) over ordered pairs of different rows.
    """

    count: int
    features: int
    summary: Float64s
    within: float

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Summarise features (n, d), float32 or float64; n may be 0."""
        check_rows(features, least=0)
        count, width = features.shape
        if width <= CUBIC_FEATURES:
            tensor, own = _cubic_moments(features)
            return cls(count, width, tensor, float(tensor @ tensor) - own)
        rows = features.astype(np.float64)
        own = float(np.sum((np.sum(rows**2, axis=1) / width + 1) ** 3))
        return cls(count, width, rows, _sum_kernel(rows, rows) - own)

    def merge(self, other: Self) -> Self:
        """Return the sums over the rows of both."""
        within = self.within + other.within + 2 * self.between(other)
        are_moments = self.summary.ndim == 1
        summary = self.summary + other.summary if are_moments else np.concatenate([self.summary, other.summary])
        return type(self)(self.count + other.count, self.features, summary, within)

    def between(self, other: Self) -> float:
        """Sum k(x, y) over rows x of this set and y of the other."""
        if self.features != other.features:
            raise ValueError(f"rows of {self.features} and of {other.features} features are not compared")
        if self.summary.ndim == 1:
            return float(self.summary @ other.summary)
        return _sum_kernel(self.summary, other.summary)


def _cubic_moments(features: NDArray[Any]) -> tuple[Float64s, float]:
    """Compute the packed tensor Σ x̂⊗x̂⊗x̂, and Σ k(x, x) = Σ ‖x̂‖⁶."""
    width = features.shape[1]
    slabs = [np.zeros((width + 1 - i, width + 1 - i)) for i in range(width + 1)]
    own = 0.0
    for chunk in float64_chunks(features):
        lifted = np.hstack([chunk / np.sqrt(width), np.ones((len(chunk), 1))])
        own += float(np.sum(np.sum(lifted**2, axis=1) ** 3))
        for i, slab in enumerate(slabs):  # slab i: Σ x̂_i x̂_j x̂_k, j and k from i on
            slab += (lifted[:, i:] * lifted[:, i : i + 1]).T @ lifted[:, i:]
    return np.concatenate([slab[np.triu_indices(len(slab))] for slab in slabs]) * _multiplicities(width + 1), own


def _sums_to_kid(n: int, m: int, within_a: float, within_b: float, between: float) -> float:
    """Add the means over pairs of different rows within each set, less twice the mean over pairs of one of each."""
    if min(n, m) < 2:
        raise ValueError(f"KID takes at least 2 rows on either side, there are {n} and {m}")
    return float(within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * between / (n * m))


def _sum_kernel(a: Float64s, b: Float64s) -> float:
    """Sum (x·y/d + 1)³ over all x of a and y of b."""
    total = 0.0
    for i in range(0, len(a), _TILE):
        for j in range(0, len(b), _TILE):
            tile = a[i : i + _TILE] @ b[j : j + _TILE].T  # (≤ _TILE, ≤ _TILE)
            tile /= a.shape[1]
            tile += 1
            total += float(np.sum(tile * tile * tile))
    return total


@lru_cache(maxsize=4)
def _multiplicities(width: int) -> Float64s:
    """Return the root of how often entry i ≤ j ≤ k occurs in the whole tensor: √6, √3 for two equal, 1 for three."""
    parts = []
    for i in range(width):
        j, k = np.triu_indices(width - i)
        equal = (j == 0).astype(np.int64) + (j == k)  # j, k count from i
        parts.append(np.sqrt(np.array([6.0, 3.0, 1.0])[equal]))
    roots = np.concatenate(parts)
    roots.flags.writeable = False
    return roots
