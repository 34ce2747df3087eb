"""Label sources: the condition of a request, resolved to one label for each sample.

Workers receive labels only. A label depends on the sample's address alone, so that any part of a stream can be drawn
again with the same labels.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream, first_uniform
from service.calls import Labels

__all__ = ["DrawnLabels", "GivenLabels", "LabelSource", "NoLabels", "OneLabel"]

_FEW = 16  # labels that are drawn faster one by one than as an array


class LabelSource(Protocol):
    """The source of a stream's labels."""

    def labels(self, seed: int, start_index: int, count: int) -> Labels | None:
        """Return the labels of consecutive samples, (count,) uint32; None for an unconditional model."""
        ...


@dataclass(frozen=True)
class NoLabels:
    """The source for an unconditional model."""

    def labels(self, seed: int, start_index: int, count: int) -> None:
        """Return no labels."""


@dataclass(frozen=True, kw_only=True)
class OneLabel:
    """One class for every sample."""

    label: int

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """Return the label, `count` times."""
        return np.full(count, self.label, np.uint32)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenLabels:
    """A class for each sample, as given in the request: ids[k] belongs to first_index + k."""

    first_index: int
    ids: Labels

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """Return the given labels of the range."""
        offset = start_index - self.first_index
        return self.ids[offset : offset + count]


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnLabels:
    """Classes drawn on the stream `label` of each sample's own address.

    Attributes:
        cumulative: (classes,) float64, non-decreasing to 1.
    """

    cumulative: NDArray[np.float64]

    @classmethod
    @lru_cache(maxsize=64)  # most requests use the model's prior
    def of_weights(cls, weights: tuple[float, ...]) -> DrawnLabels:
        """Build from relative weights, one a class, not all zero."""
        shares = np.asarray(weights, np.float64) / max(weights)  # so that sums of huge weights stay finite
        cumulative = np.cumsum(shares / shares.sum())
        cumulative[np.flatnonzero(shares)[-1] :] = 1.0  # rounding must not leave a gap, nor reach a class of weight 0
        return cls(cumulative=cumulative)

    @cached_property
    def _bounds(self) -> tuple[float, ...]:
        return tuple(self.cumulative.tolist())

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """Draw by inversion: the class whose interval of [0, 1) contains the sample's uniform number."""
        if count <= _FEW:
            numbers = [first_uniform(seed, start_index + k, Stream.LABEL) for k in range(count)]
            return np.array([bisect_right(self._bounds, each) for each in numbers], np.uint32)
        uniform = Addresses.of_range(seed, start_index, count).uniforms(Stream.LABEL, 1)[:, 0]
        return np.searchsorted(self.cumulative, uniform, side="right").astype(np.uint32)
