"""Gates: conditions on metrics that a release must meet, such as `copy_rate.upper95 < 0.01` or `recall[7] >= 0.5`.

The text of a gate is parsed, or refused, when an evaluation is requested; when it is done, the gate is evaluated on its
metrics.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from fount.names import class_index, normal_name
from service.evaluation.panels.registry import METRICS, PER_CLASS_METRICS
from service.evaluation.results import ClassValue, GateOutcome, Metric, Panel, Verdict

__all__ = ["FIELDS", "OPERATORS", "Gate", "evaluate_gate", "parse_gate"]

FIELDS = ("value", "lower95", "upper95", "null_mean")
"""Numbers of a metric that a gate may compare; the first is the default."""
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_GATE = re.compile(r"\s*(?P<left>.*?)\s*(?P<op><=|>=|==|!=|=<|=>|<|>|=)\s*(?P<number>[^<>=]*?)\s*", re.DOTALL)
_LEFT = re.compile(
    r"(?P<metric>[^\W\d][^\[\].\s]*)\s*(\[(?P<class>[^\]]*)\])?\s*(\.\s*(?P<field>[^\s.\[\]]+))?", re.DOTALL
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_FORM = "a gate has the form METRIC.FIELD < NUMBER, as copy_rate.upper95 < 0.01, or METRIC[CLASS].FIELD >= NUMBER"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition.

    Attributes:
        text: as it was requested.
        metric: one of `METRICS`.
        class_name: of the data set, or the index of a class, as in `class_index`; None: over all classes.
        field: one of `FIELDS`.
        op: one of `OPERATORS`.
        number: to compare with, finite.
    """

    text: str
    metric: str
    class_name: str | None
    field: str
    op: str
    number: float

    @property
    def panel(self) -> Panel:
        """The panel of its metric."""
        return METRICS[self.metric]


def parse_gate(text: str) -> Gate:
    """Parse a gate.

    Args:
        text: `METRIC[CLASS].FIELD op NUMBER`; the class and the field are optional, spaces are ignored, and a class
            name may contain anything but `]`.

    Raises:
        ValueError: it does not parse, or no panel has the metric; the message says what is wrong and what to write.
    """
    # A class name may contain signs: replaced by as many underscores, they compare nothing.
    without_class = re.sub(r"\[[^\]]*\]", lambda found: "[" + "_" * (len(found[0]) - 2) + "]", text, count=1)
    parts = _GATE.fullmatch(without_class)
    if parts is None:
        raise ValueError(f"{text!r} compares nothing; {_FORM}")
    if parts["op"] not in OPERATORS:
        raise ValueError(f"{text!r} compares by {parts['op']!r}; write one of {' '.join(OPERATORS)}")
    left = _LEFT.fullmatch(text[parts.start("left") : parts.end("left")])
    if left is None:
        raise ValueError(f"{text!r} does not name one metric; {_FORM}")
    metric = _one_of(text, left["metric"], tuple(METRICS), "metric")
    if left["class"] is not None and metric not in PER_CLASS_METRICS:
        by_class = ", ".join(sorted(PER_CLASS_METRICS))
        raise ValueError(f"{text!r}: {metric} is not computed by class; metrics by class are {by_class}")
    return Gate(
        text=text,
        metric=metric,
        class_name=None if left["class"] is None else normal_name(left["class"]),
        field=_one_of(text, left["field"] or FIELDS[0], FIELDS, "field"),
        op=parts["op"],
        number=_number(text, parts["number"]),
    )


def evaluate_gate(gate: Gate, metrics: Sequence[Metric]) -> GateOutcome:
    """Evaluate a gate on metrics; it does not pass on a number that could not be computed."""
    metric = next((each for each in metrics if each.name == gate.metric), None)
    if metric is None:
        if any(each.panel is gate.panel for each in metrics):
            return _no_number(gate, f"{gate.metric} was not computed: the model gives no scores, or none to the caller")
        return _no_number(gate, f"{gate.metric} was not computed: the {gate.panel} panel was not requested")
    if gate.class_name is None:
        null_mean = None if metric.null is None else metric.null.mean
        actual = _field(metric, null_mean, gate.field)
        note = metric.note or f"{metric.name} has no {gate.field}"
    else:
        names = [each.class_name for each in metric.classes]
        index = class_index(gate.class_name, names)
        if index is None:
            listed = ", ".join(names[:20]) or "none"
            return _no_number(gate, f"{metric.name} has no class {gate.class_name!r}; its classes are {listed}")
        of_class = metric.classes[index]
        actual = _field(of_class, of_class.null_mean, gate.field)
        note = f"{metric.name} has no {gate.field} in class {of_class.class_name!r}: too few samples or rows"
        if metric.verdict is Verdict.NOT_MEASURABLE:
            note = metric.note
    if actual is None or not math.isfinite(actual):
        return _no_number(gate, note)
    return GateOutcome(gate=gate.text, passed=OPERATORS[gate.op](actual, gate.number), actual=actual)


def _one_of(text: str, name: str, names: tuple[str, ...], what: str) -> str:
    if name in names:
        return name
    similar = get_close_matches(name.lower(), names, 1, cutoff=0.0)[0]
    raise ValueError(f"{text!r}: there is no {what} {name!r}, did you mean {similar!r}? There are {', '.join(names)}")


def _number(text: str, number: str) -> float:
    if _NUMBER.fullmatch(number) is None:
        raise ValueError(f"{text!r}: {number!r} is not a number; write one as 0.01 or 1e-3")
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{text!r}: {number} is too large for a number")
    return value


def _field(of: Metric | ClassValue, null_mean: float | None, field: str) -> float | None:
    low, high = of.interval or (None, None)
    return {"value": of.value, "lower95": low, "upper95": high, "null_mean": null_mean}[field]


def _no_number(gate: Gate, note: str) -> GateOutcome:
    return GateOutcome(gate=gate.text, passed=False, actual=None, note=note)
