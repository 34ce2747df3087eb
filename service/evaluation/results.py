"""What panels find: metrics with their intervals and with what real data scores, verdicts, outcomes of gates.

All of it is plain values that JSON holds, so that a step can leave it in a file and a report can show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

from service.evaluation.statistics.intervals import Interval

__all__ = ["Better", "ClassValue", "GateOutcome", "Metric", "Null", "Panel", "PanelResult", "Verdict"]

Better = Literal["lower", "higher", "null"]
"""Which direction is good; "null": as near to the real value as can be."""


class Panel(StrEnum):
    """One question about a generator, in the order of the report."""

    REALISM = "realism"
    DIVERSITY = "diversity"
    MEMORISATION = "memorisation"
    LABEL_FIDELITY = "label-fidelity"


class Verdict(StrEnum):
    """How a metric compares with real data."""

    #: it could not be computed, or there is no real value.
    NONE = "none"
    #: within what real rows score against real rows.
    LIKE_REAL = "like-real"
    #: told apart from real rows, by less than the metric's tolerance.
    NEAR_REAL = "near-real"
    #: told apart from real rows, by more than the metric's tolerance.
    WORSE = "worse"


@dataclass(frozen=True, kw_only=True)
class Null:
    """The same statistic for real rows in the place of samples.

    Attributes:
        mean: over the draws of real rows.
        range: where 95 % of such values lie.
        draws: how many were taken; 0: known in closed form, or from one interval.
        rows: how many real rows stood in the place of samples.
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
class Metric:
    """One number.

    Attributes:
        name: what gates call it, lower case with underscores.
        panel: the question it belongs to.
        value: the point estimate; None: it could not be computed, and `note` says why.
        interval: 95 %; None: there is none.
        null: for real rows; None: it has none.
        verdict: compares the two.
        decides: the panel's verdict rests on it.
        better: which direction is good.
        tolerance: how far from real is still near, in the metric's own unit.
        method: how it was estimated, with sizes and source.
        note: what a reader must know beside the number.
        samples: how many samples it is of.
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

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        read: dict[str, Any] = dict(value)
        null = read["null"]
        return cls(
            **read
            | {
                "panel": Panel(read["panel"]),
                "verdict": Verdict(read["verdict"]),
                "interval": _interval(read["interval"]),
                "null": None if null is None else Null(**null | {"range": _interval(null["range"])}),
                "classes": tuple(_class_value(each) for each in read["classes"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class PanelResult:
    """The answer to one question: the worst verdict among its deciding metrics, and a sentence for people."""

    panel: Panel
    verdict: Verdict
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(panel=Panel(value["panel"]), verdict=Verdict(value["verdict"]), sentence=value["sentence"])


@dataclass(frozen=True, kw_only=True)
class GateOutcome:
    """What became of a gate.

    Attributes:
        gate: as it was given.
        passed: whether it holds; one on a number that could not be computed does not.
        actual: the number it looked at; None: it could not be computed.
        note: why there is no number.
    """

    gate: str
    passed: bool
    actual: float | None
    note: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(**dict(value))


def _interval(value: Any) -> Any:
    return None if value is None else (value[0], value[1])


def _class_value(value: Mapping[str, Any]) -> ClassValue:
    read: dict[str, Any] = dict(value)
    return ClassValue(**read | {"interval": _interval(read["interval"]), "verdict": Verdict(read["verdict"])})
