"""How many rows there are to be, and what fills them up: the rules a target can follow."""

from __future__ import annotations

from dataclasses import dataclass

from service.augmentation.slots import Source

__all__ = ["Balance", "Counts", "Factor", "MixRule", "Rule", "Weights"]


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
