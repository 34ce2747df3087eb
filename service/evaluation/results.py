"""Results of an evaluation: metrics with their intervals and null distributions, verdicts, outcomes of gates.

All of it is plain values that JSON can hold, so that a step can store it in a file and a report can show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from service.evaluation.statistics.intervals import Interval

__all__ = ["Better", "ClassValue", "GateOutcome", "Metric", "Null", "Panel", "PanelResult", "Verdict"]

Better = Literal["lower", "higher", "null"]
"""Which direction is good; "null": as close to the real value as possible."""


class Panel(StrEnum):
    """A group of metrics that answers one question about a generator, in the order of the report."""

    REALISM = "realism"
    DIVERSITY = "diversity"
    MEMORISATION = "memorisation"
    LABEL_FIDELITY = "label-fidelity"


class Verdict(StrEnum):
    """How a metric compares with real data."""

    #: it could not be computed, or there is no real value.
    NONE = "none"
    #: within the range of what real rows score.
    LIKE_REAL = "like-real"
    #: significantly different from real rows, by less than the metric's tolerance.
    NEAR_REAL = "near-real"
    #: nothing can be said, because the rows to compare with are not what they should be; no gate on it passes.
    NOT_MEASURABLE = "not-measurable"
    #: significantly different from real rows, by more than the metric's tolerance.
    WORSE = "worse"


class _JsonValue:
    """A dataclass that is written as JSON and read back."""

    def to_json(self) -> dict[str, Any]:
        """Convert to values that JSON can hold."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        read: Self = _adapter(cls).validate_python(dict(value))  # type: ignore[arg-type]
        return read


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, kw_only=True)
class Null:
    """The null distribution of a metric: the same statistic for real rows in the place of samples.

    Attributes:
        mean: over the draws of real rows.
        range: where 95 % of such values lie.
        draws: how many reference samples were drawn; 0: known in closed form, or from one interval.
        rows: how many real rows were in the place of samples.
    """

    mean: float
    range: Interval
    draws: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class ClassValue:
    """A metric within one class; None where the class has too few samples or rows."""

    class_name: str
    value: float | None
    interval: Interval | None = None
    null_mean: float | None = None
    verdict: Verdict = Verdict.NONE


@dataclass(frozen=True, kw_only=True)
class Metric(_JsonValue):
    """One number of the report.

    Attributes:
        name: as in gates, lower case with underscores.
        panel: it belongs to.
        value: the point estimate; None: it could not be computed, and `note` says why.
        interval: 95 %; None: there is none.
        null: for real rows; None: it has none.
        verdict: of the comparison with real rows.
        decides: whether the panel's verdict depends on it.
        better: which direction is good.
        tolerance: how far from real is still near, in the metric's own unit.
        method: how it was estimated, with sizes and source.
        note: what a reader must know to interpret the number.
        samples: how many samples it was computed from.
        classes: the same within each class.
    """

    name: str
    panel: Panel
    value: float | None
    interval: Interval | None = None
    null: Null | None = None
    verdict: Verdict = Verdict.NONE
    decides: bool = False
    better: Better
    tolerance: float = 0.0
    method: str
    note: str = ""
    samples: int = 0
    classes: tuple[ClassValue, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PanelResult(_JsonValue):
    """The answer of a panel: the worst verdict among its deciding metrics, and a sentence.

    Attributes:
        note: what a reader must know about the real rows that it rests on; empty: nothing.
    """

    panel: Panel
    verdict: Verdict
    sentence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GateOutcome(_JsonValue):
    """The outcome of a gate.

    Attributes:
        gate: as it was requested.
        passed: whether it holds; a gate on a number that could not be computed does not.
        actual: the number it compares; None: it could not be computed.
        note: why there is no number.
    """

    gate: str
    passed: bool
    actual: float | None
    note: str = ""
