"""The slots of a plan: what every row is made from, known before any is made.

Slots are listed stratum by stratum, one stratum for each class, group and source that has rows; row i is the slot π(i),
π being the plan's keyed permutation. Everything drawn for row i is read at address (plan seed, i), so any row can be
told alone. Memory grows with the data set, never with the plan.

Which rows of the data set a stratum is fed from:

    REAL, once        each row of the cell once, or a random choice without replacement
    REAL, bootstrap   drawn with replacement, slot by slot
    REAL, poisson     each row once; its weight is drawn from Poisson(1) at the row's own address (seed, source row), so
                      every plan of that seed weighs it the same
    RESAMPLED         drawn with replacement from the bag
    TRANSFORMED       the bag in a shuffled order, round and round, so that every row is used as often as any other, ± 1

The bag is what the REAL rows of the cell are: all of them, the bootstrap's draws, or the rows of Poisson weight above
0. So a row out of bag is nowhere in the plan with a weight above 0, and can judge what was trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from service.augmentation.bootstrap import draw, poisson_weights
from service.augmentation.cells import Cells
from service.augmentation.permutation import MAX_ROWS, Order

__all__ = ["Layout", "RealMode", "Slots", "Source", "Stratum"]

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
    """What consecutive rows are made from, a column a fact.

    Attributes:
        index: (n,) uint64, the rows.
        source: (n,) uint8, as `Source`.
        label: (n,) uint32, class ids of the data set.
        group: (n,) uint32; the number of groups for a row that has none.
        source_row: (n,) int64, rows of the split; -1 for synthesised ones.
        weight: (n,) uint32; 1 but for real rows of a Poisson bootstrap.
    """

    index: NDArray[np.uint64]
    source: NDArray[np.uint8]
    label: NDArray[np.uint32]
    group: NDArray[np.uint32]
    source_row: NDArray[np.int64]
    weight: NDArray[np.uint32]


class Layout:
    """All slots of one plan, computed when asked for.

    Args:
        labels: (rows,) class ids of the split.
        groups: (rows,) group ids of the split; None without a group column.
        group_count: how many groups the data set has; 0 without a group column.
        strata: in any order; those with count 0 are left out.
        mode: how real rows are taken.
        seed: of the plan.

    Attributes:
        count: rows of the plan.
        strata: those with rows, by class, group and source.

    Raises:
        ValueError: a stratum asks for rows of a cell that has none, or for more of a real cell than it has; or there
            are more than MAX_ROWS.
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
        self.count = sum(each.count for each in self.strata)
        if self.count > MAX_ROWS:
            raise ValueError(f"a plan has at most {MAX_ROWS} rows, not {self.count}")
        self._seed, self._mode = seed, mode
        self._order = Order(seed, self.count)
        self._ends = np.cumsum([each.count for each in self.strata], dtype=np.uint64)
        self._labels = np.array([each.label for each in self.strata], np.uint32)
        self._groups = np.array([each.group for each in self.strata], np.uint32)
        self._sources = np.array([each.source for each in self.strata], np.uint8)
        self._starts = self._ends - np.array([each.count for each in self.strata], np.uint64)
        self._cells = Cells.of(labels, groups, group_count, seed)
        real = (k for k, each in enumerate(self.strata) if each.source is Source.REAL)
        self._real_at = {(self.strata[k].label, self.strata[k].group): k for k in real}
        self._feeds = {cell: self._feed(cell) for cell in self._cells_fed()}
        self._place_feeds()

    def rows(self, first: int, count: int) -> Slots:
        """Tell what rows `first` to `first + count - 1` are made from."""
        index = np.uint64(first) + np.arange(count, dtype=np.uint64)
        slot = self._order.slots(index)
        stratum = np.searchsorted(self._ends, slot, side="right")
        k = slot - self._starts[stratum]
        source = self._sources[stratum]
        source_row, resampled = np.full(count, -1, np.int64), source == Source.RESAMPLED
        fed, size = source != Source.SYNTHESISED, self._feed_sizes[stratum]
        k[resampled] = draw(self._seed, index[resampled], size[resampled])
        source_row[fed] = self._fed_rows[self._feed_starts[stratum[fed]] + k[fed] % size[fed]]
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

    def shard(self, shard: int, shards: int) -> range:
        """The rows of shard `shard` of `shards`: floor(N·s/S) to floor(N·(s+1)/S) - 1."""
        return range(self.count * shard // shards, self.count * (shard + 1) // shards)

    def out_of_bag(self) -> NDArray[np.int64]:
        """The rows of the split, ascending, that the plan's bootstrap did not draw.

        Classes and groups of which the plan takes no real row are left out altogether.

        Raises:
            ValueError: real rows are not bootstrapped.
        """
        if self._mode not in (RealMode.BOOTSTRAP, RealMode.POISSON):
            raise ValueError("real rows are not bootstrapped, so none is out of bag")
        cells = [cell for cell, feed in self._feeds.items() if len(feed.real)]
        members = [np.empty(0, np.int64), *(self._cells.members(*cell) for cell in cells)]
        bags = [np.empty(0, np.int64), *(self._feeds[cell].bag for cell in cells)]
        return np.setdiff1d(np.concatenate(members), np.concatenate(bags))

    def _cells_fed(self) -> list[_Cell]:
        fed = (each for each in self.strata if each.source is not Source.SYNTHESISED)
        return list(dict.fromkeys((each.label, each.group) for each in fed))

    def _feed(self, cell: _Cell) -> _Feed:
        """The rows of the split that a cell's strata are fed from."""
        members = self._cells.members(*cell)
        at = self._real_at.get(cell)
        count = 0 if at is None else self.strata[at].count
        if not len(members) or count > len(members):
            raise ValueError(f"class {cell[0]}, group {cell[1]} has {len(members)} rows, and {count} were asked for")
        if at is None or self._mode is RealMode.NONE:
            return _Feed(real=members[:0], bag=members)
        real = members[:count]
        if self._mode is RealMode.BOOTSTRAP:
            rows = self._order.rows(self._starts[at] + np.arange(count, dtype=np.uint64))
            real = members[draw(self._seed, rows, len(members))]
        if self._mode is not RealMode.POISSON:
            return _Feed(real=real, bag=real)
        heavy = real[poisson_weights(self._seed, real) > 0]
        return _Feed(real=real, bag=heavy if len(heavy) else real)

    def _place_feeds(self) -> None:
        """Lay the feeds end to end, and note where each stratum's lies."""
        lists, places, end = [np.empty(0, np.int64)], dict[int, int](), 0
        starts, sizes = [], []
        for each in self.strata:
            feed = self._feeds.get((each.label, each.group)) if each.source is not Source.SYNTHESISED else None
            rows = lists[0] if feed is None else feed.real if each.source is Source.REAL else feed.bag
            if id(rows) not in places:
                places[id(rows)], end = end, end + len(rows)
                lists.append(rows)
            starts.append(places[id(rows)])
            sizes.append(max(len(rows), 1))
        self._feed_starts, self._feed_sizes = np.array(starts, np.uint64), np.array(sizes, np.uint64)
        self._fed_rows = np.concatenate(lists)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Feed:
    """The rows of the split that one cell's real rows are, and those its other rows are made from."""

    real: NDArray[np.int64]
    bag: NDArray[np.int64]
