"""Feeds: where the rows of a stream come from.

A stream is cut wherever a call ends; its feed then gives any stretch of it as one item of a worker call. Stretches of
addresses cost nothing to cut, stretches of arrays are views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.catalog import LabelSource
from service.domain import Dtype, Images, Item, Labels, ManipulationItem, RangeItem, TensorItem

__all__ = ["Feed", "IndexFeed", "ManipulationFeed", "RangeFeed", "TensorFeed"]

_INDEX_BYTES = 12  # an index and a label


class Feed(Protocol):
    """What a stream asks of workers, stretch by stretch."""

    @property
    def row_dims(self) -> tuple[int, ...]:
        """The shape of a row that is sent; () when only addresses are. Only equal ones share a call."""
        ...

    @property
    def row_bytes(self) -> int:
        """How many bytes a row takes on its way to a worker; 0 when next to none."""
        ...

    def item(self, first: int, count: int) -> Item:
        """The work of `count` rows from `first` on, as its `Work` counts them."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeFeed:
    """Consecutive samples: `first` is the sample's index.

    Attributes:
        seed: of all of them.
        labels: where their labels come from.
        dtype: of the rows wanted back.
    """

    seed: int
    labels: LabelSource
    dtype: Dtype

    row_dims = ()
    row_bytes = 0

    def item(self, first: int, count: int) -> RangeItem:
        """The addresses, with their labels."""
        labels = self.labels.labels(self.seed, first, count)
        return RangeItem(seed=self.seed, start_index=first, count=count, labels=labels, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexFeed:
    """Samples of any indices of one seed: `first` is the place in `indices`.

    Attributes:
        seed: of all of them.
        indices: (n,) uint64.
        labels: (n,), or None for an unconditional model.
        dtype: of the rows wanted back.
    """

    seed: int
    indices: NDArray[np.uint64]
    labels: Labels | None
    dtype: Dtype

    row_dims = ()
    row_bytes = _INDEX_BYTES

    def item(self, first: int, count: int) -> RangeItem:
        """The addresses; those that happen to be consecutive are told as such."""
        indices = self.indices[first : first + count]
        # uint64 differences wrap: from the last index to 0 is a step of one.
        consecutive = bool(indices[0] <= indices[-1] and (np.diff(indices) == 1).all())
        return RangeItem(
            seed=self.seed,
            start_index=int(indices[0]) if consecutive else 0,
            count=count,
            labels=None if self.labels is None else self.labels[first : first + count],
            dtype=self.dtype,
            indices=None if consecutive else indices,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorFeed:
    """Rows to read: (n, H, W, C); `first` is the place among them."""

    rows: Images

    @property
    def row_dims(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.rows.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Of one."""
        return self.rows.nbytes // max(1, len(self.rows))

    def item(self, first: int, count: int) -> TensorItem:
        """A view of them."""
        return TensorItem(rows=self.rows[first : first + count])


@dataclass(frozen=True, kw_only=True, eq=False)
class ManipulationFeed:
    """Rows to transform; `first` is the place among them. Attributes as those of `ManipulationItem`."""

    rows: NDArray[np.uint8]
    table: NDArray[np.float32]
    seed: int
    indices: NDArray[np.uint64]

    @property
    def row_dims(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.rows.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Of an image with its line of the table and its index."""
        return (self.rows.nbytes + self.table.nbytes) // max(1, len(self.rows)) + _INDEX_BYTES

    def item(self, first: int, count: int) -> ManipulationItem:
        """Views of them."""
        rows = slice(first, first + count)
        return ManipulationItem(
            rows=self.rows[rows], table=self.table[rows], seed=self.seed, indices=self.indices[rows]
        )
