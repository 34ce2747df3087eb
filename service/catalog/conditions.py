"""Conditions, resolved to one label a sample. Workers never see anything else.

A label depends on the sample's address alone, so any part of a stream can be had again with the labels it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.domain import Labels

__all__ = ["DrawnLabels", "GivenLabels", "LabelSource", "NoLabels", "OneLabel"]


class LabelSource(Protocol):
    """Where the labels of a stream come from."""

    def labels(self, seed: int, start_index: int, count: int) -> Labels | None:
        """The labels of consecutive samples, (count,) uint32; None for an unconditional model."""
        ...


@dataclass(frozen=True)
class NoLabels:
    """An unconditional model's."""

    def labels(self, seed: int, start_index: int, count: int) -> None:
        """No labels."""


@dataclass(frozen=True, kw_only=True)
class OneLabel:
    """Every sample of one class."""

    label: int

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """The label, `count` times."""
        return np.full(count, self.label, np.uint32)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenLabels:
    """Each sample's class, as the request gave it: ids[k] belongs to first_index + k."""

    first_index: int
    ids: Labels

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """The stretch of the given ones."""
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
    @lru_cache(maxsize=64)  # a model's prior is asked for with every request
    def of_weights(cls, weights: tuple[float, ...]) -> DrawnLabels:
        """Build from relative weights, one a class, not all zero."""
        shares = np.asarray(weights, np.float64) / max(weights)  # so that sums of huge weights stay finite
        cumulative = np.cumsum(shares / shares.sum())
        cumulative[np.flatnonzero(shares)[-1] :] = 1.0  # rounding must not leave a gap, nor reach a class of weight 0
        return cls(cumulative=cumulative)

    def labels(self, seed: int, start_index: int, count: int) -> Labels:
        """Draw by inversion: the class whose stretch of [0, 1) holds the sample's uniform."""
        uniform = Addresses.of_range(seed, start_index, count).uniforms(Stream.LABEL, 1)[:, 0]
        return np.searchsorted(self.cumulative, uniform, side="right").astype(np.uint32)
