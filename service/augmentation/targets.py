"""Allocate rows: from a target rule to exact counts by class, group and source.

The rows of a data set by class and group, a target rule and a mix enter; strata leave, with what the rule could not
get. Everything is exact: shares are whole fractions, and the rows that rounding leaves go to the largest remainders
(Hare and Niemeyer), the first among equals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from service.augmentation.slots import GENERATED, RealMode, Source, Stratum

__all__ = [
    "Allocation",
    "Balance",
    "CapReached",
    "CellCounts",
    "Counts",
    "Factor",
    "Mix",
    "Shortage",
    "TargetRule",
    "Weights",
    "allocate",
    "count_cells",
    "share",
]

CellCounts = NDArray[np.int64]
"""(classes, groups) rows of a split; one column without a group column."""


# --- Rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Balance:
    """As many rows of each class as the largest has, or as `label` has; by_group: of each group of each class."""

    label: int | None
    by_group: bool


@dataclass(frozen=True, kw_only=True)
class Factor:
    """So many times the rows of each class, rounded down; by_group: of each group of each class."""

    factor: float
    by_group: bool


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Exact counts by class, or by class and group; others keep the rows they have.

    Attributes:
        counts: (label, group) to count, in the order of the request; group None stands for the class as a whole.
    """

    counts: dict[tuple[int, int | None], int]

    @property
    def by_group(self) -> bool:
        """Whether entries name groups."""
        return any(group is not None for _, group in self.counts)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A total shared among classes by weights.

    Attributes:
        total: number of rows.
        weights: weight by label, in the order of the request; 0 for other labels.
    """

    total: int
    weights: dict[int, float]


TargetRule = Balance | Factor | Counts | Weights


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What fills a class up to its target: relative weights, and the most generated rows for one real row.

    `max_synthetic_ratio` None: any number.
    """

    resampled: float = 1.0
    transformed: float = 0.0
    synthesised: float = 0.0
    translated: float = 0.0
    reconstructed: float = 0.0
    max_synthetic_ratio: float | None = None

    @property
    def weights(self) -> dict[Source, float]:
        """The weights by source."""
        return {
            Source.RESAMPLED: self.resampled,
            Source.TRANSFORMED: self.transformed,
            Source.SYNTHESISED: self.synthesised,
            Source.TRANSLATED: self.translated,
            Source.RECONSTRUCTED: self.reconstructed,
        }


# --- Results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """A target that contradicts the data: fewer rows than there are without subsampling, or rows made from none.

    Attributes:
        field: the target's path in the request.
        label, group: the class and group; group None stands for the class as a whole.
        available, target: rows it has, and rows it would have.
    """

    field: str
    label: int
    group: int | None
    available: int
    target: int


@dataclass(frozen=True, kw_only=True)
class CapReached:
    """A class that gets fewer generated rows than the mix requests; no other source replaces `missing` of them."""

    label: int
    requested: int
    allowed: int
    missing: int


@dataclass(kw_only=True)
class Allocation:
    """The rows that a target rule results in.

    Attributes:
        strata: by class, group and source; none of count 0.
        shortages: what makes the rule wrong; then there are no strata.
        caps_reached: the classes where the cap on generated rows held.
        synthesised_alone: classes without a row, all of whose rows are synthesised.
        left_empty: (label, group) without a row that stay empty, though the target wants rows; group None stands for
            the class as a whole.
    """

    strata: tuple[Stratum, ...] = ()
    shortages: list[Shortage] = field(default_factory=list)
    caps_reached: list[CapReached] = field(default_factory=list)
    synthesised_alone: list[int] = field(default_factory=list)
    left_empty: list[tuple[int, int | None]] = field(default_factory=list)

    def labels_of(self, source: Source) -> set[int]:
        """Return the classes with rows of a source."""
        return {each.label for each in self.strata if each.source is source}


def count_cells(
    labels: NDArray[np.uint32], groups: NDArray[np.uint32] | None, class_count: int, group_count: int
) -> CellCounts:
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


def allocate(
    cells: CellCounts, rule: TargetRule, *, group_count: int, mix: Mix, mode: RealMode, subsample: bool = False
) -> Allocation:
    """Turn a target rule into strata. Slow for many classes and groups: not for an event loop.

    Args:
        cells: rows there are.
        rule: how many there are to be.
        group_count: groups of the data set; 0 without a group column.
        mix: what fills up.
        mode: how real rows are taken.
        subsample: whether rows may be left out.
    """
    units = _units(cells, rule)
    shortages = [each for unit in units if (each := _shortage(unit, mix, mode=mode, subsample=subsample))]
    if shortages:
        return Allocation(shortages=shortages)
    allocator = _Allocator(mix=mix, mode=mode, group_count=group_count)
    for _, of_class in groupby(units, key=lambda unit: unit.label):
        allocator.add_class(list(of_class))
    allocator.result.strata = tuple(
        Stratum(label=label, group=group, source=source, count=count)
        for (label, group, source), count in sorted(allocator.strata.items())
        if count
    )
    return allocator.result


# --- Targets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """A class, or one group of a class, with the rows it is to have.

    Attributes:
        label, group: the class and group; group None stands for the class as a whole.
        available: rows of each group it spans, by group id.
        target: how many rows it is to have.
        field: the target's path in the request.
        is_explicit: the request names this very class or group.
    """

    label: int
    group: int | None
    available: dict[int, int]
    target: int
    field: str
    is_explicit: bool

    @property
    def rows(self) -> int:
        """Number of rows there are."""
        return sum(self.available.values())


def _units(cells: CellCounts, rule: TargetRule) -> list[_Unit]:
    by_group = not isinstance(rule, Weights) and rule.by_group
    keys = [(label, group) for label in range(len(cells)) for group in (range(cells.shape[1]) if by_group else [None])]
    available = [
        dict(enumerate(cells[label].tolist())) if group is None else {group: int(cells[label, group])}
        for label, group in keys
    ]
    rows = [sum(each.values()) for each in available]
    fields, explicit = ["target.factor"] * len(keys), [isinstance(rule, Weights)] * len(keys)
    match rule:
        case Weights():
            targets = share(rule.total, [rule.weights.get(label, 0.0) for label, _ in keys])
            fields = ["target.weights"] * len(keys)
        case Counts():
            places = {key: f"target.counts.counts[{place}]" for place, key in enumerate(rule.counts)}
            targets = [rule.counts.get(key, count) for key, count in zip(keys, rows, strict=True)]
            fields, explicit = [places.get(key, "") for key in keys], [key in places for key in keys]
        case Balance():
            largest = max(count for (label, _), count in zip(keys, rows, strict=True) if rule.label in (None, label))
            targets = [largest] * len(keys)
            fields = ["target.balance_to_largest" if rule.label is None else "target.balance_to_class"] * len(keys)
        case Factor():
            factor = Fraction(rule.factor)  # as a double it is exact, and so is its product with a count
            targets = [int(count * factor) for count in rows]
    return [
        _Unit(label=key[0], group=key[1], available=there, target=target, field=name, is_explicit=is_explicit)
        for key, there, target, name, is_explicit in zip(keys, available, targets, fields, explicit, strict=True)
    ]


def _shortage(unit: _Unit, mix: Mix, *, mode: RealMode, subsample: bool) -> Shortage | None:
    below = unit.target < unit.rows and mode is not RealMode.NONE and not subsample
    from_nothing = unit.target and not unit.rows and unit.is_explicit and not mix.synthesised
    if not (below or from_nothing):
        return None
    return Shortage(field=unit.field, label=unit.label, group=unit.group, available=unit.rows, target=unit.target)


# --- Sources ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Allocator:
    """Allocates the rows of classes to sources, class by class."""

    mix: Mix
    mode: RealMode
    group_count: int
    result: Allocation = field(default_factory=Allocation)
    strata: Counter[tuple[int, int, Source]] = field(default_factory=Counter)

    def add_class(self, units: list[_Unit]) -> None:
        """Allocate the units of one class."""
        label, rows = units[0].label, sum(unit.rows for unit in units)
        requests = [self._split(unit, self._take_real(unit)) for unit in units]
        generated = allowed = [each[source] for each in requests for source in GENERATED]
        if self.mix.max_synthetic_ratio is not None:
            cap = int(Fraction(self.mix.max_synthetic_ratio) * rows)
            allowed = generated if sum(generated) <= cap else share(cap, generated)
        parts = [allowed[first : first + len(GENERATED)] for first in range(0, len(allowed), len(GENERATED))]
        missing = sum(map(self._fill_up, units, requests, parts))
        if sum(generated) > sum(allowed):
            self.result.caps_reached.append(
                CapReached(label=label, requested=sum(generated), allowed=sum(allowed), missing=missing)
            )
        if sum(allowed) and not rows:
            self.result.synthesised_alone.append(label)

    def _take_real(self, unit: _Unit) -> int:
        """Place a unit's real rows; return how many others it needs."""
        real = 0 if self.mode is RealMode.NONE else min(unit.target, unit.rows)
        self._spread(unit, Source.REAL, real)
        return unit.target - real

    def _split(self, unit: _Unit, need: int) -> dict[Source, int]:
        """Share the rows that a unit needs among the sources that can make them."""
        weights = self.mix.weights
        if not unit.rows:
            if need and (unit.group is not None or not self.mix.synthesised):  # synthesised rows have no group
                self.result.left_empty.append((unit.label, unit.group))
            weights = dict.fromkeys(weights, 0.0) | {Source.SYNTHESISED: self.mix.synthesised}
        return dict(zip(weights, share(need, list(weights.values())), strict=True))

    def _fill_up(self, unit: _Unit, request: dict[Source, int], allowed: Sequence[int]) -> int:
        """Place the rows that fill a unit up, `allowed` of `GENERATED`; return how many the cap leaves missing."""
        others = [Source.RESAMPLED, Source.TRANSFORMED]
        excess = sum(request[source] for source in GENERATED) - sum(allowed)
        weights = [self.mix.weights[source] if unit.rows else 0.0 for source in others]
        for source, more in zip(others, share(excess, weights), strict=True):
            self._spread(unit, source, request[source] + more)
        synthesised, *from_rows = allowed
        self.strata[unit.label, self.group_count, Source.SYNTHESISED] += synthesised
        for source, count in zip(GENERATED[1:], from_rows, strict=True):
            self._spread(unit, source, count)
        return 0 if any(weights) else excess

    def _spread(self, unit: _Unit, source: Source, count: int) -> None:
        """Share rows among a unit's groups in proportion to its own rows."""
        for group, part in zip(unit.available, share(count, list(unit.available.values())), strict=True):
            self.strata[unit.label, group, source] += part
