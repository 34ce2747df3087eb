"""KID: the squared distance between the mean images of two sets under the cubic kernel (x·y/d + 1)³.

The full-sample unbiased estimator, of all pairs, not a mean over random subsets. It is 0 on average for sets of one
distribution, and may be negative.

With x̂ = (x/√d, 1), the kernel is (x̂·ŷ)³ = ⟨x̂⊗x̂⊗x̂, ŷ⊗ŷ⊗ŷ⟩: sums over pairs are products of sums over rows. Up to
`CUBIC_FEATURES` features the state is the symmetric tensor Σ x̂⊗x̂⊗x̂, C(d + 3, 3) numbers, which merges by addition and
costs n·d³ in place of n²·d. Beyond, rows are kept and pairs are summed tile by tile; the value is the same.

Sources: Bińkowski et al., "Demystifying MMD GANs", 2018, section 4; Gretton et al., "A kernel two-sample test", 2012,
lemma 6 (the unbiased statistic).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.evaluation.statistics.intervals import BLOCKS, Estimate, block_rows, jackknife
from service.evaluation.statistics.rows import check_rows, stretches

__all__ = ["CUBIC_FEATURES", "CubicSums", "KernelRows", "estimate_kid", "kernel_state", "kid"]

Float64s = NDArray[np.float64]

CUBIC_FEATURES = 128
"""Up to so many features, the tensor is cheaper than pairs."""

_TILE = 1024  # rows of a tile of the kernel matrix: 8 MiB


@dataclass(frozen=True, eq=False)
class CubicSums:
    """The third-order moments of rows; a mergeable state for up to `CUBIC_FEATURES` features.

    Attributes:
        count: n.
        features: d.
        tensor: (C(d + 3, 3),) float64: the entries i ≤ j ≤ k of Σ x̂⊗x̂⊗x̂, each times the root of how often it occurs,
            so that the product of two of these is the product of the whole tensors.
        own: Σ k(x, x) = Σ ‖x̂‖⁶.
    """

    count: int
    features: int
    tensor: Float64s
    own: float

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Sum over rows.

        Args:
            features: (n, d) float32 or float64, d at most `CUBIC_FEATURES`; n may be 0.

        Raises:
            ValueError: too many features, not two axes, or rows that are not finite.
        """
        check_rows(features, least=0)
        width = features.shape[1]
        if width > CUBIC_FEATURES:
            raise ValueError(f"{width} features are more than {CUBIC_FEATURES}: take KernelRows")
        slabs = [np.zeros((width + 1 - i, width + 1 - i)) for i in range(width + 1)]
        own = 0.0
        for part in stretches(features):
            lifted = np.hstack([part / np.sqrt(width), np.ones((len(part), 1))])
            own += float(np.sum(np.sum(lifted**2, axis=1) ** 3))
            for i, slab in enumerate(slabs):  # slab i: Σ x̂_i x̂_j x̂_k, j and k from i on
                slab += (lifted[:, i:] * lifted[:, i : i + 1]).T @ lifted[:, i:]
        packed = np.concatenate([slab[np.triu_indices(len(slab))] for slab in slabs])
        return cls(len(features), width, packed * _occurrences(width + 1), own)

    def merge(self, other: Self) -> Self:
        """The sums over the rows of both.

        Raises:
            ValueError: rows of another width.
        """
        _check_widths(self.features, other.features)
        tensor = self.tensor + other.tensor
        return type(self)(self.count + other.count, self.features, tensor, self.own + other.own)

    def pairs(self) -> float:
        """Σ k(x, y) over ordered pairs of different rows."""
        return float(self.tensor @ self.tensor) - self.own

    def pairs_with(self, other: Self) -> float:
        """Σ k(x, y) over rows x of this and y of the other."""
        _check_widths(self.features, other.features)
        return float(self.tensor @ other.tensor)


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Rows with the sum over their pairs; a mergeable state for any number of features.

    Attributes:
        rows: (n, d) float64.
        within: Σ k(x, y) over ordered pairs of different rows.
    """

    rows: Float64s
    within: float

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Sum over pairs of rows, tile by tile.

        Args:
            features: (n, d) float32 or float64; n may be 0.

        Raises:
            ValueError: not two axes, or rows that are not finite.
        """
        check_rows(features, least=0)
        rows = features.astype(np.float64)
        own = float(np.sum((np.sum(rows**2, axis=1) / rows.shape[1] + 1) ** 3))
        return cls(rows, _sum_of_pairs(rows, rows) - own)

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows)

    @property
    def features(self) -> int:
        """The rows' width."""
        return int(self.rows.shape[1])

    def merge(self, other: Self) -> Self:
        """The rows of both.

        Raises:
            ValueError: rows of another width.
        """
        within = self.within + other.within + 2 * self.pairs_with(other)
        return type(self)(np.concatenate([self.rows, other.rows]), within)

    def pairs(self) -> float:
        """Σ k(x, y) over ordered pairs of different rows."""
        return self.within

    def pairs_with(self, other: Self) -> float:
        """Σ k(x, y) over rows x of this and y of the other."""
        _check_widths(self.features, other.features)
        return _sum_of_pairs(self.rows, other.rows)


KernelState = CubicSums | KernelRows


def kernel_state(features: NDArray[Any]) -> KernelState:
    """The state that is cheaper for so many features.

    Args:
        features: (n, d) float32 or float64.

    Raises:
        ValueError: not two axes, or rows that are not finite.
    """
    return CubicSums.of(features) if features.shape[-1] <= CUBIC_FEATURES else KernelRows.of(features)


def kid(a: KernelState | NDArray[Any], b: KernelState | NDArray[Any]) -> float:
    """The unbiased squared distance of two sets, from all pairs; not times 1000.

    Args:
        a: a state, or (n, d) float32 or float64; n at least 2.
        b: the other set.

    Raises:
        ValueError: fewer than two rows on either side, another width, or rows that are not finite.
    """
    first, second = (side if isinstance(side, KernelState) else kernel_state(side) for side in (a, b))
    counts = (first.count, second.count)
    return _unbiased(counts, first.pairs(), second.pairs(), _between(first, second))


def estimate_kid(features: NDArray[Any], reference: KernelState | NDArray[Any], blocks: int = BLOCKS) -> Estimate:
    """The squared distance of rows from a reference, which is taken as it is.

    Args:
        features: (n, d) float32 or float64; n at least 2.
        reference: a state, which is worth having where it is used again, or (m, d) float32 or float64; m at least 2.
        blocks: of the jackknife; 1: the value alone, for draws that show their spread by themselves.

    Returns:
        Its interval speaks of the expectation over sets of rows (jackknife over blocks); none for fewer than 3 rows.

    Raises:
        ValueError: fewer than two rows on either side, another width, or rows that are not finite.
    """
    check_rows(features, least=2)
    real = reference if isinstance(reference, KernelState) else kernel_state(reference)
    states = [kernel_state(features[rows]) for rows in block_rows(len(features), blocks)]
    return _estimate_from_sums(states, real)


def _estimate_from_sums(blocks: list[KernelState], real: KernelState) -> Estimate:
    """The statistic and its interval, from sums over pairs of blocks: leaving one out is taking its sums away."""
    sizes = np.array([block.count for block in blocks])
    n, m, own = int(sizes.sum()), real.count, real.pairs()
    within = np.zeros((len(blocks), len(blocks)))  # pairs of rows of block i and of block j
    for i, block in enumerate(blocks):
        within[i, i] = block.pairs()
        for j in range(i):
            within[i, j] = within[j, i] = _between(block, blocks[j])
    between = np.array([_between(block, real) for block in blocks])  # pairs of rows of block i and of the reference
    value = _unbiased((n, m), within.sum(), own, between.sum())
    if len(blocks) < 2 or n - sizes.max() < 2:
        return Estimate(value)
    left_within = within.sum() - 2 * within.sum(axis=1) + within.diagonal()
    left_between = between.sum() - between
    parts = zip(n - sizes, left_within, left_between, strict=True)
    left_out = [_unbiased((int(left), m), inside, own, across) for left, inside, across in parts]
    return Estimate(value, jackknife(value, np.array(left_out), sizes))


def _between(a: KernelState, b: KernelState) -> float:
    """Σ k(x, y) over rows of both, which are states of one kind."""
    if isinstance(a, CubicSums) and isinstance(b, CubicSums):
        return a.pairs_with(b)
    if isinstance(a, KernelRows) and isinstance(b, KernelRows):
        return a.pairs_with(b)
    raise ValueError("states of two kinds are not compared: one is of sums, the other of rows")


def _unbiased(counts: tuple[int, int], within_a: float, within_b: float, between: float) -> float:
    """Means over pairs of different rows within each set, less twice the mean over pairs of one of each."""
    n, m = counts
    if min(n, m) < 2:
        raise ValueError(f"KID takes at least 2 rows on either side, there are {n} and {m}")
    return float(within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * between / (n * m))


def _sum_of_pairs(a: Float64s, b: Float64s) -> float:
    """Σ (x·y/d + 1)³ over all x of a and y of b."""
    total = 0.0
    for i in range(0, len(a), _TILE):
        for j in range(0, len(b), _TILE):
            tile = a[i : i + _TILE] @ b[j : j + _TILE].T  # (≤ _TILE, ≤ _TILE)
            tile /= a.shape[1]
            tile += 1
            total += float(np.sum(tile * tile * tile))
    return total


@lru_cache(maxsize=4)
def _occurrences(width: int) -> Float64s:
    """The root of how often entry i ≤ j ≤ k stands in the whole tensor: √6, √3 for two alike, 1 for three."""
    parts = []
    for i in range(width):
        j, k = np.triu_indices(width - i)
        alike = (j == 0).astype(np.int64) + (j == k)  # j, k count from i
        parts.append(np.sqrt(np.array([6.0, 3.0, 1.0])[alike]))
    weights = np.concatenate(parts)
    weights.flags.writeable = False
    return weights


def _check_widths(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"rows of {a} and of {b} features are not compared")
