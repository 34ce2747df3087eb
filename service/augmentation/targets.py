"""Target counts, and how they are filled: from wishes to exact counts by class, group and source.

Counts of a data set and a rule enter; strata leave, with what could not be had. Everything is exact: shares are whole
fractions, and what rounding leaves over goes to the largest remainders (Hare and Niemeyer), the first among equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from service.augmentation.slots import RealMode, Source, Stratum

__all__ = [
    "Balance",
    "Capped",
    "Cells",
    "Counts",
    "Factor",
    "Filling",
    "MixRule",
    "Rule",
    "Shortage",
    "Weights",
    "count_cells",
    "fill",
    "share",
]


Cells = NDArray[np.int64]
"""(classes, groups) rows of a split; one column without a group column."""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """A target that is wrong for what there is.

    Attributes:
        field: its place in the request.
        label, group: whose; group None stands for the class as a whole.
        there, target: rows it has, and would have: fewer without leave to subsample, or some made from none.
    """

    field: str
    label: int
    group: int | None
    there: int
    target: int


@dataclass(frozen=True, kw_only=True)
class Capped:
    """Synthesised rows of a class that the cap forbade; `missing` of them nothing else made up for."""

    label: int
    wished: int
    allowed: int
    missing: int


@dataclass(kw_only=True)
class Filling:
    """What a rule comes to.

    Attributes:
        strata: by class, group and source; none of count 0.
        shortages: what makes the rule wrong; empty when it is sound.
        capped: where the cap held.
        made_alone: classes without a row, of which all are synthesised.
        left_empty: (label, group) without a row that stay empty, though rows were wanted; group None stands for the
            class as a whole.
    """

    strata: tuple[Stratum, ...] = ()
    shortages: list[Shortage] = field(default_factory=list)
    capped: list[Capped] = field(default_factory=list)
    made_alone: list[int] = field(default_factory=list)
    left_empty: list[tuple[int, int | None]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """Rows that have one target: a class, or one group of a class.

    Attributes:
        label, group: which; group None stands for the class as a whole.
        there: rows of each group it spans, in order of `groups`.
        groups: their ids.
        target: how many it is to have.
        field: where the request says so.
        is_explicit: somebody named this very unit.
    """

    label: int
    group: int | None
    there: tuple[int, ...]
    groups: tuple[int, ...]
    target: int
    field: str
    is_explicit: bool


def count_cells(
    labels: NDArray[np.uint32], groups: NDArray[np.uint32] | None, class_count: int, group_count: int
) -> Cells:
    """Count the rows of a split by class and group."""
    width = max(group_count, 1)
    cells = labels.astype(np.int64) * width
    if groups is not None:
        cells += groups
    return np.bincount(cells, minlength=class_count * width).reshape(class_count, width)


def share(total: int, weights: Sequence[float | int]) -> list[int]:
    """Share a total in proportion, exactly; the largest remainders round up, the first among equals.

    Args:
        total: 0 or more.
        weights: finite, not negative, not all 0 unless the total is.
    """
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact, Fraction(0))
    if not total or not whole:
        return [0] * len(exact)
    quotas = [total * weight / whole for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda k: (shares[k] - quotas[k], k))
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def fill(
    cells: Cells, rule: Rule, *, group_count: int, mix: MixRule, mode: RealMode, subsample: bool = False
) -> Filling:
    """Turn a rule into strata.

    Args:
        cells: rows there are.
        rule: how many there are to be.
        group_count: groups of the data set; 0 without a group column.
        mix: what fills up.
        mode: how real rows are taken.
        subsample: whether rows may be left out.
    """
    units = _units(cells, rule)
    found = [_shortage(unit, mix, mode=mode, subsample=subsample) for unit in units]
    shortages = [each for each in found if each]
    if shortages:
        return Filling(shortages=shortages)
    filler = _Filler(mix=mix, mode=mode, group_count=group_count)
    for label, of_class in groupby(units, key=lambda unit: unit.label):
        filler.add(list(of_class), int(cells[label].sum()))
    filler.filling.strata = tuple(
        Stratum(label=label, group=group, source=source, count=count)
        for (label, group, source), count in sorted(filler.strata.items())
        if count
    )
    return filler.filling


# --- Targets ----------------------------------------------------------------------------------------------------------


def _units(cells: Cells, rule: Rule) -> list[_Unit]:
    if isinstance(rule, Counts):
        return _counted(cells, rule)
    if isinstance(rule, Weights):
        shares = share(rule.total, rule.weights)
        return [_class_unit(cells, k, shares[k], "target.weights", is_explicit=True) for k in range(len(cells))]
    counts = cells if rule.by_group else cells.sum(axis=1, keepdims=True)
    if isinstance(rule, Balance):
        field_name = "target.balance_to_largest" if rule.label is None else "target.balance_to_class"
        largest = int((counts if rule.label is None else counts[rule.label]).max())
        targets = np.full(counts.shape, largest).tolist()
    else:
        field_name = "target.factor"
        factor = Fraction(rule.factor)  # as a double it is exact, and so is its product with a count
        targets = [[int(count * factor) for count in row] for row in counts.tolist()]
    if not rule.by_group:
        return [_class_unit(cells, k, targets[k][0], field_name) for k in range(len(cells))]
    return [_cell_unit(cells, k, g, targets[k][g], field_name) for k, g in np.ndindex(*cells.shape)]


def _counted(cells: Cells, rule: Counts) -> list[_Unit]:
    units = []
    for label in range(len(cells)):
        for group in range(cells.shape[1]) if rule.by_group else (None,):
            there = int(cells[label].sum() if group is None else cells[label, group])
            target, place = rule.counts.get((label, group), (there, None))
            name = "" if place is None else f"target.counts.counts[{place}]"
            if group is None:
                units.append(_class_unit(cells, label, target, name, is_explicit=place is not None))
            else:
                units.append(_cell_unit(cells, label, group, target, name, is_explicit=place is not None))
    return units


def _class_unit(cells: Cells, label: int, target: int, name: str, *, is_explicit: bool = False) -> _Unit:
    there = tuple(cells[label].tolist())
    groups = tuple(range(len(there)))
    return _Unit(
        label=label, group=None, there=there, groups=groups, target=target, field=name, is_explicit=is_explicit
    )


def _cell_unit(cells: Cells, label: int, group: int, target: int, name: str, *, is_explicit: bool = False) -> _Unit:
    there = (int(cells[label, group]),)
    return _Unit(
        label=label, group=group, there=there, groups=(group,), target=target, field=name, is_explicit=is_explicit
    )


def _shortage(unit: _Unit, mix: MixRule, *, mode: RealMode, subsample: bool) -> Shortage | None:
    there = sum(unit.there)
    below = unit.target < there and mode is not RealMode.NONE and not subsample
    from_nothing = unit.target and not there and unit.is_explicit and not mix.synthesised
    if below or from_nothing:
        return Shortage(field=unit.field, label=unit.label, group=unit.group, there=there, target=unit.target)
    return None


# --- Filling ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Filler:
    """Fills classes one by one."""

    mix: MixRule
    mode: RealMode
    group_count: int
    filling: Filling = field(default_factory=Filling)
    strata: dict[tuple[int, int, Source], int] = field(default_factory=dict)

    def add(self, units: list[_Unit], rows: int) -> None:
        """Fill the units of one class, which has so many rows."""
        needs = [self._take_real(unit) for unit in units]
        wishes = [self._split(unit, need) for unit, need in zip(units, needs, strict=True)]
        allowed = self._cap(units, [each[Source.SYNTHESISED] for each in wishes], rows)
        missing = 0
        for unit, wish, synthesised in zip(units, wishes, allowed, strict=True):
            missing += self._fill_up(unit, wish, synthesised)
        wished = sum(each[Source.SYNTHESISED] for each in wishes)
        if wished > sum(allowed):
            self.filling.capped.append(
                Capped(label=units[0].label, wished=wished, allowed=sum(allowed), missing=missing)
            )
        if sum(allowed) and not rows:
            self.filling.made_alone.append(units[0].label)

    def _take_real(self, unit: _Unit) -> int:
        """Place a unit's real rows; returns how many others it needs."""
        if self.mode is RealMode.NONE:
            return unit.target
        real = min(unit.target, sum(unit.there))
        self._spread(unit, Source.REAL, real)
        return unit.target - real

    def _split(self, unit: _Unit, need: int) -> dict[Source, int]:
        weights = self.mix.weights
        if not sum(unit.there):
            if need and (unit.group is not None or not self.mix.synthesised):  # synthesised rows have no group
                self.filling.left_empty.append((unit.label, unit.group))
            weights = {**weights, Source.RESAMPLED: 0.0, Source.TRANSFORMED: 0.0}
        return dict(zip(weights, share(need, list(weights.values())), strict=True))

    def _cap(self, units: list[_Unit], wishes: list[int], rows: int) -> list[int]:
        if self.mix.max_synthetic_ratio is None:
            return wishes
        cap = int(Fraction(self.mix.max_synthetic_ratio) * rows)
        return wishes if sum(wishes) <= cap else share(cap, wishes)

    def _fill_up(self, unit: _Unit, wish: dict[Source, int], synthesised: int) -> int:
        """Place what a unit needs; returns how many of its rows the cap left missing."""
        real_made = [Source.RESAMPLED, Source.TRANSFORMED]
        left = wish[Source.SYNTHESISED] - synthesised
        weights = [self.mix.weights[source] if sum(unit.there) else 0.0 for source in real_made]
        for source, more in zip(real_made, share(left, weights), strict=True):
            self._spread(unit, source, wish[source] + more)
        key = (unit.label, self.group_count, Source.SYNTHESISED)
        self.strata[key] = self.strata.get(key, 0) + synthesised
        return 0 if any(weights) else left

    def _spread(self, unit: _Unit, source: Source, count: int) -> None:
        """Share rows among a unit's groups as its own rows are."""
        for group, part in zip(unit.groups, share(count, unit.there), strict=True):
            key = (unit.label, group, source)
            self.strata[key] = self.strata.get(key, 0) + part


# FOLDED FROM service.augmentation.targets:
# How many rows there are to be, and what fills them up: the rules a target can follow.


@dataclass(frozen=True, kw_only=True)
class Balance:
    """As many rows of each class as the largest has, or as `label` has; by_group: of each group of each class."""

    label: int | None
    by_group: bool


@dataclass(frozen=True, kw_only=True)
class Factor:
    """So many times the rows, rounded down."""

    factor: float
    by_group: bool


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Exact counts by class, or by class and group; what is left out stays as it is.

    Attributes:
        counts: (label, group) to count and the entry's place; group None stands for the class as a whole.
    """

    counts: dict[tuple[int, int | None], tuple[int, int]]

    @property
    def by_group(self) -> bool:
        """Whether entries name groups."""
        return any(group is not None for _, group in self.counts)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A total shared among classes by weights, one a class."""

    total: int
    weights: tuple[float, ...]


Rule = Balance | Factor | Counts | Weights


@dataclass(frozen=True, kw_only=True)
class MixRule:
    """What fills a class up: relative weights, and how many synthesised rows a real one allows; None: any number."""

    resampled: float = 1.0
    transformed: float = 0.0
    synthesised: float = 0.0
    max_synthetic_ratio: float | None = None

    @property
    def weights(self) -> dict[Source, float]:
        """By source."""
        return {
            Source.RESAMPLED: self.resampled,
            Source.TRANSFORMED: self.transformed,
            Source.SYNTHESISED: self.synthesised,
        }
