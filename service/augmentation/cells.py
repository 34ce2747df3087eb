"""The rows of a split by class and group, shuffled within each by the plan's seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.augmentation.permutation import KEY_BLOCKS

__all__ = ["Cells"]

_STEP = 1 << 16  # rows looked at together


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The rows of a split by class and group, shuffled within each.

    Attributes:
        rows: (n,) int64, cell by cell.
        cells: (n,) int64, the cell of each, ascending.
        groups: how many groups; 1 without a group column.
    """

    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    groups: int

    @classmethod
    def of(cls, labels: NDArray[np.uint32], groups: NDArray[np.uint32] | None, group_count: int, seed: int) -> Cells:
        """Sort rows by cell, and within a cell by a number drawn at (seed, row) on the stream `order`."""
        cells = labels.astype(np.int64) * max(group_count, 1)
        if groups is not None:
            cells += groups
        order = np.lexsort((_shuffle_words(seed, len(labels)), cells))  # stable: equal words keep the rows' order
        return cls(rows=order.astype(np.int64), cells=cells[order], groups=max(group_count, 1))

    def members(self, label: int, group: int) -> NDArray[np.int64]:
        """The rows of one cell, shuffled."""
        cell = label * self.groups + group
        first, end = np.searchsorted(self.cells, [cell, cell + 1])
        return self.rows[first:end]


def _shuffle_words(seed: int, count: int) -> NDArray[np.uint64]:
    parts = [np.empty(0, np.uint64)]
    for at in range(0, count, _STEP):
        addresses = Addresses.of_range(seed, at, min(_STEP, count - at))
        words = addresses.words(Stream.ORDER, 2, KEY_BLOCKS).astype(np.uint64)  # (n, 2)
        parts.append(words[:, 0] | (words[:, 1] << np.uint64(32)))
    return np.concatenate(parts)
