"""The slots of a plan: what every row is made from, known before any row is made.

Slots are listed stratum by stratum; a stratum is one class, group and source. Row i is slot π(i), π being the plan's
keyed permutation (`permutation.py`). Everything drawn for row i is read at address (plan seed, i), so any row can be
computed alone. Memory grows with the data set, never with the plan.

Which rows of the data set a stratum takes:

    REAL, once        each row of the cell once, or a random choice without replacement
    REAL, bootstrap   drawn with replacement, slot by slot
    REAL, poisson     each row once; its weight is drawn from Poisson(1) at the row's own address (seed, source row), so
                      every plan of that seed gives it the same weight
    RESAMPLED         drawn with replacement from the bag
    TRANSFORMED       the bag in a shuffled order, over and over, so that all rows are used equally often, ± 1

The bag holds the REAL rows of the cell: all of them, the bootstrap's draws, or the rows of Poisson weight above 0. So a
row out of bag is nowhere in the plan with a weight above 0, and can test what was trained on it.

Sources: Efron 1979 (bootstrap); Oza and Russell, "Online bagging and boosting", AISTATS 2001 (Poisson weights).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.cancellation import check_cancelled
from service.augmentation.permutation import KEY_BLOCKS, MAX_ROWS, Permutation

__all__ = ["Layout", "RealMode", "Slots", "Source", "Stratum", "poisson_weights"]

_STEP = 1 << 16  # rows computed together
_POISSON_BLOCK = 1  # of the stream `resample`; block 0 is for draws with replacement
_E_INVERSE = 0.36787944117144233

_Cell = tuple[int, int]
"""Class and group; group 0 without a group column."""


class Source(IntEnum):
    """Where a row comes from, numbered as in fount.v1.Source."""

    REAL = 1
    RESAMPLED = 2
    TRANSFORMED = 3
    SYNTHESISED = 4


class RealMode(IntEnum):
    """Which rows of the data set are taken as they are, numbered as in fount.v1.RealRows.Mode."""

    ONCE = 1
    BOOTSTRAP = 2
    POISSON = 3
    NONE = 4


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """How many rows of one class, group and source; for synthesised rows the group is the number of groups."""

    label: int
    group: int
    source: Source
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """What consecutive rows are made from, one column for each fact.

    Attributes:
        index: (n,) uint64, the rows.
        source: (n,) uint8, as `Source`.
        label: (n,) uint32, class ids of the data set.
        group: (n,) uint32; the number of groups for a row that has none.
        source_row: (n,) int64, rows of the split; -1 for synthesised ones.
        weight: (n,) uint32; 1 except for real rows of a Poisson bootstrap.
    """

    index: NDArray[np.uint64]
    source: NDArray[np.uint8]
    label: NDArray[np.uint32]
    group: NDArray[np.uint32]
    source_row: NDArray[np.int64]
    weight: NDArray[np.uint32]


class Layout:
    """All slots of one plan, computed when they are read.

    Args:
        labels: (rows,) class ids of the split.
        groups: (rows,) group ids of the split; None without a group column.
        group_count: number of groups of the data set; 0 without a group column.
        strata: in any order; those with count 0 are left out.
        mode: how real rows are taken.
        seed: of the plan.

    Attributes:
        count: rows of the plan.
        source_counts: its rows by source.
        strata: those with rows, by class, group and source.
        is_bootstrapped: whether real rows are bootstrapped, so that there may be rows out of bag.

    Raises:
        ValueError: a stratum needs rows of a cell that has none, or more real rows than a cell has; or there are more
            than MAX_ROWS.
    """

    def __init__(
        self,
        *,
        labels: NDArray[np.uint32],
        groups: NDArray[np.uint32] | None,
        group_count: int,
        strata: tuple[Stratum, ...],
        mode: RealMode,
        seed: int,
    ) -> None:
        ordered = sorted(strata, key=lambda each: (each.label, each.group, each.source))
        self.strata = tuple(each for each in ordered if each.count)
        self.source_counts = Counter[Source]()
        for each in self.strata:
            self.source_counts[each.source] += each.count
        self.count = self.source_counts.total()
        if self.count > MAX_ROWS:
            raise ValueError(f"a plan has at most {MAX_ROWS} rows, not {self.count}")
        self.is_bootstrapped = mode in (RealMode.BOOTSTRAP, RealMode.POISSON)
        self._seed, self._mode = seed, mode
        self._permutation = Permutation(seed, self.count)
        self._ends = np.cumsum([each.count for each in self.strata], dtype=np.uint64)
        self._labels = np.array([each.label for each in self.strata], np.uint32)
        self._groups = np.array([each.group for each in self.strata], np.uint32)
        self._sources = np.array([each.source for each in self.strata], np.uint8)
        self._starts = self._ends - np.array([each.count for each in self.strata], np.uint64)
        self._cells = _shuffled_cells(labels, groups, group_count, seed)
        real = (k for k, each in enumerate(self.strata) if each.source is Source.REAL)
        self._real_at = {(self.strata[k].label, self.strata[k].group): k for k in real}
        cells = {(each.label, each.group): None for each in self.strata if each.source is not Source.SYNTHESISED}
        self._source_rows = {cell: self._rows_of_cell(cell) for cell in cells}
        self._place_source_rows()

    def rows(self, first: int, count: int) -> Slots:
        """Compute what rows `first` to `first + count - 1` are made from."""
        index = np.uint64(first) + np.arange(count, dtype=np.uint64)
        slot = self._permutation.slots(index)
        stratum = np.searchsorted(self._ends, slot, side="right")
        k = slot - self._starts[stratum]
        source = self._sources[stratum]
        source_row, resampled = np.full(count, -1, np.int64), source == Source.RESAMPLED
        from_data, size = source != Source.SYNTHESISED, self._list_sizes[stratum]
        k[resampled] = _draw(self._seed, index[resampled], size[resampled])
        source_row[from_data] = self._lists[self._list_starts[stratum[from_data]] + k[from_data] % size[from_data]]
        weight = np.ones(count, np.uint32)
        if self._mode is RealMode.POISSON:
            real = source == Source.REAL
            weight[real] = poisson_weights(self._seed, source_row[real])
        return Slots(
            index=index,
            source=source,
            label=self._labels[stratum],
            group=self._groups[stratum],
            source_row=source_row,
            weight=weight,
        )

    def out_of_bag(self) -> NDArray[np.int64]:
        """Return the rows of the split, ascending, that the plan's bootstrap did not draw.

        Classes and groups of which the plan takes no real row are left out.

        Raises:
            ValueError: real rows are not bootstrapped.
        """
        if not self.is_bootstrapped:
            raise ValueError("real rows are not bootstrapped, so none is out of bag")
        cells = [cell for cell, rows in self._source_rows.items() if len(rows.real)]
        members = [np.empty(0, np.int64), *(self._cells[cell] for cell in cells)]
        bags = [np.empty(0, np.int64), *(self._source_rows[cell].bag for cell in cells)]
        return np.setdiff1d(np.concatenate(members), np.concatenate(bags))

    def _rows_of_cell(self, cell: _Cell) -> _SourceRows:
        """Choose the rows of the split that a cell's strata take."""
        members = self._cells.get(cell, np.empty(0, np.int64))
        at = self._real_at.get(cell)
        count = 0 if at is None else self.strata[at].count
        if not len(members) or count > len(members):
            raise ValueError(f"class {cell[0]}, group {cell[1]} has {len(members)} rows, and the plan needs {count}")
        if at is None or self._mode is RealMode.NONE:
            return _SourceRows(real=members[:0], bag=members)
        real = members[:count]
        if self._mode is RealMode.BOOTSTRAP:
            rows = self._permutation.rows(self._starts[at] + np.arange(count, dtype=np.uint64))
            real = members[_draw(self._seed, rows, len(members))]
        if self._mode is not RealMode.POISSON:
            return _SourceRows(real=real, bag=real)
        positive = real[poisson_weights(self._seed, real) > 0]
        return _SourceRows(real=real, bag=positive if len(positive) else real)

    def _place_source_rows(self) -> None:
        """Join the lists of source rows to one array, and note where each stratum's list lies."""
        lists, places, end = [np.empty(0, np.int64)], dict[int, int](), 0
        starts, sizes = [], []
        for each in self.strata:
            chosen = self._source_rows.get((each.label, each.group)) if each.source is not Source.SYNTHESISED else None
            rows = lists[0] if chosen is None else chosen.real if each.source is Source.REAL else chosen.bag
            if id(rows) not in places:
                places[id(rows)], end = end, end + len(rows)
                lists.append(rows)
            starts.append(places[id(rows)])
            sizes.append(max(len(rows), 1))
        self._list_starts, self._list_sizes = np.array(starts, np.uint64), np.array(sizes, np.uint64)
        self._lists = np.concatenate(lists)


class _SourceRows(NamedTuple):
    """The rows of the split for one cell: those of its real rows, and the bag its other rows are made from."""

    real: NDArray[np.int64]
    bag: NDArray[np.int64]


def _shuffled_cells(
    labels: NDArray[np.uint32], groups: NDArray[np.uint32] | None, group_count: int, seed: int
) -> dict[_Cell, NDArray[np.int64]]:
    """Sort rows by cell, and within a cell by a number drawn at (seed, row) on the stream `order`."""
    width = max(group_count, 1)
    cells = labels.astype(np.int64) * width + (0 if groups is None else groups)
    words = [np.empty(0, np.uint64)]
    for first in range(0, len(labels), _STEP):
        check_cancelled()
        addresses = Addresses.of_range(seed, first, min(_STEP, len(labels) - first))
        pairs = addresses.words(Stream.ORDER, 2, KEY_BLOCKS).astype(np.uint64)  # (n, 2)
        words.append(pairs[:, 0] | (pairs[:, 1] << np.uint64(32)))
    order = np.lexsort((np.concatenate(words), cells)).astype(np.int64)  # stable: equal words keep the rows' order
    keys, starts = np.unique(cells[order], return_index=True)
    return {divmod(key, width): rows for key, rows in zip(keys.tolist(), np.split(order, starts[1:]), strict=False)}


def poisson_weights(seed: int, source_rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Draw weights of rows of a split by inversion of Poisson(1).

    Args:
        seed: of the plan.
        source_rows: (n,) which rows.

    Returns:
        (n,) uint32; 0 with probability 1/e.
    """
    weights = [np.empty(0, np.uint32)]
    for first in range(0, len(source_rows), _STEP):
        check_cancelled()
        indices = source_rows[first : first + _STEP].astype(np.uint64)
        addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
        uniform = addresses.uniforms(Stream.RESAMPLE, 1, _POISSON_BLOCK)[:, 0]
        weights.append(np.searchsorted(_POISSON_CUMULATIVE, uniform, side="right").astype(np.uint32))
    return np.concatenate(weights)


def _poisson_cumulative() -> NDArray[np.float64]:
    """Compute P(weight <= k) for k = 0 to 17, by exactly rounded operations; what remains beyond is 2^-53."""
    term = total = _E_INVERSE
    cumulative = [total]
    for k in range(1, 18):
        term /= k
        total += term
        cumulative.append(total)
    return np.array(cumulative)


_POISSON_CUMULATIVE = _poisson_cumulative()


def _draw(seed: int, rows: NDArray[np.uint64], sizes: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Draw one of 0 to sizes - 1 for each row, at its own address."""
    addresses = Addresses(seeds=np.full(len(rows), seed, np.uint64), indices=rows)
    uniform = addresses.uniforms(Stream.RESAMPLE, 1)[:, 0]
    top = np.asarray(sizes, np.uint64)
    drawn: NDArray[np.uint64] = (uniform * top.astype(np.float64)).astype(np.uint64)
    return np.asarray(np.minimum(drawn, top - np.uint64(1)), np.uint64)
