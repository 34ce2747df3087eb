"""Kernel inception distance (KID): `estimate_kid` computes the value and its 95 % interval.

KID is the squared maximum mean discrepancy (MMD) of two sets under the cubic kernel k(x, y) = (x·y/d + 1)³. This is the
full-sample unbiased estimator, over all pairs, not a mean over random subsets. It is 0 on average for sets of one
distribution, and may be negative.

With x̂ = (x/√d, 1), the kernel is (x̂·ŷ)³ = ⟨x̂⊗x̂⊗x̂, ŷ⊗ŷ⊗ŷ⟩: sums over pairs are products of sums over rows. Up to
`CUBIC_FEATURES` features a set is summarised by the symmetric tensor Σ x̂⊗x̂⊗x̂, C(d + 3, 3) numbers, which costs n·d³
in place of n²·d. Beyond, rows are kept and the kernel is summed tile by tile; the value is the same.

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
from service.evaluation.statistics.rows import check_rows, float64_chunks

__all__ = ["CUBIC_FEATURES", "CubicSums", "KernelRows", "estimate_kid", "kernel_state", "kid"]

Float64s = NDArray[np.float64]

CUBIC_FEATURES = 128
"""Up to so many features, the tensor is cheaper than pairs."""

_TILE = 1024  # rows of a tile of the kernel matrix: 8 MiB


def estimate_kid(features: NDArray[Any], reference: KernelState | NDArray[Any], blocks: int = BLOCKS) -> Estimate:
    """Estimate the KID of samples from a reference, which is held fixed, with its jackknife interval.

    Sums over pairs are computed once for each pair of blocks; leaving a block out subtracts its sums.

    Args:
        features: (n, d) float32 or float64 of the samples; n at least 2.
        reference: a state, which saves time where it is used again, or (m, d) float32 or float64; m at least 2.
        blocks: of the jackknife.

    Returns:
        The squared distance, not times 1000, and the interval of its expectation; no interval for fewer than 3 rows.

    Raises:
        ValueError: fewer than two rows on either side, another width, or rows that are not finite.
    """
    check_rows(features, least=2)
    real = reference if isinstance(reference, KernelState) else kernel_state(reference)
    states = [kernel_state(features[rows]) for rows in block_rows(len(features), blocks)]
    sizes = np.array([state.count for state in states])
    n, m = int(sizes.sum()), real.count
    within = np.zeros((len(states), len(states)))  # sums over pairs of rows of block i and of block j
    for i, state in enumerate(states):
        within[i, i] = state.within
        for j in range(i):
            within[i, j] = within[j, i] = _sum_between(state, states[j])
    between = np.array([_sum_between(state, real) for state in states])  # rows of block i and of the reference
    value = _sums_to_kid((n, m), within.sum(), real.within, between.sum())
    if len(states) < 2 or n - sizes.max() < 2:
        return Estimate(value)
    left_within = within.sum() - 2 * within.sum(axis=1) + within.diagonal()
    left_between = between.sum() - between
    parts = zip(n - sizes, left_within, left_between, strict=True)
    left_out = [_sums_to_kid((int(left), m), inside, real.within, across) for left, inside, across in parts]
    return Estimate(value, jackknife_interval(value, np.array(left_out), sizes))


def kid(a: KernelState | NDArray[Any], b: KernelState | NDArray[Any]) -> float:
    """Compute the value of `estimate_kid` alone, from all pairs.

    Args:
        a: a state, or (n, d) float32 or float64; n at least 2.
        b: the other set.

    Raises:
        ValueError: fewer than two rows on either side, another width, or rows that are not finite.
    """
    first, second = (side if isinstance(side, KernelState) else kernel_state(side) for side in (a, b))
    return _sums_to_kid((first.count, second.count), first.within, second.within, _sum_between(first, second))


@dataclass(frozen=True, eq=False)
class CubicSums:
    """Third-order moments of rows, for up to `CUBIC_FEATURES` features.

    Attributes:
        count: n.
        features: d.
        tensor: (C(d + 3, 3),) float64: the entries i ≤ j ≤ k of Σ x̂⊗x̂⊗x̂, each times the root of its multiplicity, so
            that the dot product of two of these is that of the whole tensors.
        within: Σ k(x, y) over ordered pairs of different rows.
    """

    count: int
    features: int
    tensor: Float64s
    within: float

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Sum over rows of features (n, d), float32 or float64, d at most `CUBIC_FEATURES`; n may be 0.

        Raises:
            ValueError: too many features, not two axes, or rows that are not finite.
        """
        check_rows(features, least=0)
        width = features.shape[1]
        if width > CUBIC_FEATURES:
            raise ValueError(f"{width} features are more than {CUBIC_FEATURES}: use KernelRows")
        slabs = [np.zeros((width + 1 - i, width + 1 - i)) for i in range(width + 1)]
        own = 0.0  # Σ k(x, x) = Σ ‖x̂‖⁶
        for chunk in float64_chunks(features):
            lifted = np.hstack([chunk / np.sqrt(width), np.ones((len(chunk), 1))])
            own += float(np.sum(np.sum(lifted**2, axis=1) ** 3))
            for i, slab in enumerate(slabs):  # slab i: Σ x̂_i x̂_j x̂_k, j and k from i on
                slab += (lifted[:, i:] * lifted[:, i : i + 1]).T @ lifted[:, i:]
        tensor = np.concatenate([slab[np.triu_indices(len(slab))] for slab in slabs]) * _multiplicities(width + 1)
        return cls(len(features), width, tensor, float(tensor @ tensor) - own)


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Rows with the kernel's sum over their pairs, for any number of features.

    Attributes:
        count: n.
        features: d.
        rows: (n, d) float64.
        within: Σ k(x, y) over ordered pairs of different rows.
    """

    count: int
    features: int
    rows: Float64s
    within: float

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Sum over pairs of rows of features (n, d), float32 or float64; n may be 0.

        Raises:
            ValueError: not two axes, or rows that are not finite.
        """
        check_rows(features, least=0)
        rows = features.astype(np.float64)
        own = float(np.sum((np.sum(rows**2, axis=1) / rows.shape[1] + 1) ** 3))
        return cls(len(rows), rows.shape[1], rows, _sum_kernel(rows, rows) - own)


KernelState = CubicSums | KernelRows


def kernel_state(features: NDArray[Any]) -> KernelState:
    """Summarise features (n, d), float32 or float64, in the way that is cheaper for so many features.

    Raises:
        ValueError: not two axes, or rows that are not finite.
    """
    return CubicSums.of(features) if features.shape[-1] <= CUBIC_FEATURES else KernelRows.of(features)


def _sum_between(a: KernelState, b: KernelState) -> float:
    """Sum k(x, y) over rows x of a and y of b, which must be summarised in the same way."""
    if a.features != b.features:
        raise ValueError(f"rows of {a.features} and of {b.features} features are not compared")
    if isinstance(a, CubicSums) and isinstance(b, CubicSums):
        return float(a.tensor @ b.tensor)
    if isinstance(a, KernelRows) and isinstance(b, KernelRows):
        return _sum_kernel(a.rows, b.rows)
    raise ValueError("states of two kinds are not compared: one is of sums, the other of rows")


def _sums_to_kid(counts: tuple[int, int], within_a: float, within_b: float, between: float) -> float:
    """Add the means over pairs of different rows within each set, less twice the mean over pairs of one of each."""
    n, m = counts
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
