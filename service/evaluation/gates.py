"""Gates: conditions a release pipeline stops at, as `copy_rate.upper95 < 0.01` or `recall[7] >= 0.5`.

A text enters when an evaluation is asked for, and parses or is refused; metrics enter when it is done, and an outcome
leaves.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from service.evaluation.panels.registry import METRICS, PER_CLASS_METRICS
from service.evaluation.results import ClassValue, GateOutcome, Metric, Panel

__all__ = ["FIELDS", "OPERATORS", "Gate", "evaluate_gate", "parse_gate"]

FIELDS = ("value", "lower95", "upper95", "null_mean")
"""What of a metric a gate may look at; the first is meant when none is named."""
OPERATORS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
_GATE = re.compile(r"\s*(?P<left>.*?)\s*(?P<op><=|>=|==|!=|=<|=>|<|>|=)\s*(?P<number>[^<>=]*?)\s*", re.DOTALL)
_LEFT = re.compile(
    r"(?P<metric>[^\W\d][^\[\].\s]*)\s*(\[(?P<class>[^\]]*)\])?\s*(\.\s*(?P<field>[^\s.\[\]]+))?", re.DOTALL
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")
_FORM = "a gate reads METRIC.FIELD < NUMBER, as copy_rate.upper95 < 0.01, or METRIC[CLASS].FIELD >= NUMBER"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition.

    Attributes:
        text: as it was given.
        metric: one of `METRICS`.
        class_name: of the data set; None: over all.
        field: one of `FIELDS`.
        op: one of `OPERATORS`.
        number: what is compared with, finite.
    """

    text: str
    metric: str
    class_name: str | None
    field: str
    op: str
    number: float

    @property
    def panel(self) -> Panel:
        """The question its metric belongs to."""
        return METRICS[self.metric]


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Args:
        text: `METRIC[CLASS].FIELD op NUMBER`; the class and the field may be left out, spaces are free, and a class
            name may hold anything but `]`.

    Raises:
        ValueError: it does not parse, or no panel has the metric; says what is wrong and what to write instead.
    """
    halves = _GATE.fullmatch(_hide_class(text))
    if halves is None:
        raise ValueError(f"{text!r} compares nothing; {_FORM}")
    if halves["op"] not in OPERATORS:
        raise ValueError(f"{text!r} compares by {halves['op']!r}; write one of {' '.join(OPERATORS)}")
    left = _LEFT.fullmatch(text[halves.start("left") : halves.end("left")])
    if left is None:
        raise ValueError(f"{text!r} does not name one metric; {_FORM}")
    return Gate(
        text=text,
        metric=_metric(text, left["metric"], left["class"]),
        class_name=left["class"],
        field=_known(text, left["field"] or FIELDS[0], FIELDS, "field"),
        op=halves["op"],
        number=_number(text, halves["number"]),
    )


def evaluate_gate(gate: Gate, metrics: Iterable[Metric]) -> GateOutcome:
    """See whether a gate holds; on a number that could not be computed it does not."""
    metric = next((each for each in metrics if each.name == gate.metric), None)
    if metric is None:
        return _no_number(gate, f"{gate.metric} was not computed: the {gate.panel} panel was not asked for")
    if gate.class_name is None:
        actual = _of_metric(metric, gate.field)
        note = metric.note or f"{metric.name} has no {gate.field}"
    else:
        classes = {each.class_name: each for each in metric.classes}
        if gate.class_name not in classes:
            listed = ", ".join(list(classes)[:20]) or "none"
            return _no_number(gate, f"{metric.name} has no class {gate.class_name!r}; its classes are {listed}")
        actual = _of_class(classes[gate.class_name], gate.field)
        note = f"{metric.name} has no {gate.field} in class {gate.class_name!r}: too few samples or rows"
    if actual is None or not math.isfinite(actual):
        return _no_number(gate, note)
    return GateOutcome(gate=gate.text, passed=OPERATORS[gate.op](actual, gate.number), actual=actual)


def _hide_class(text: str) -> str:
    """The same length with the class name blanked, so that signs inside it compare nothing."""
    return re.sub(r"\[[^\]]*\]", lambda found: "[" + "_" * (len(found[0]) - 2) + "]", text, count=1)


def _metric(text: str, name: str, class_name: str | None) -> str:
    known = _known(text, name, tuple(METRICS), "metric")
    if class_name is not None and known not in PER_CLASS_METRICS:
        raise ValueError(f"{text!r}: {name} is not taken by class; those are {', '.join(sorted(PER_CLASS_METRICS))}")
    return known


def _known(text: str, name: str, names: tuple[str, ...], what: str) -> str:
    if name in names:
        return name
    near = get_close_matches(name.lower(), names, 1, cutoff=0.0)[0]
    raise ValueError(f"{text!r}: there is no {what} {name!r}, did you mean {near!r}? There are {', '.join(names)}")


def _number(text: str, number: str) -> float:
    if _NUMBER.fullmatch(number) is None or number.endswith("%"):
        raise ValueError(f"{text!r}: {number!r} is not a number; write one as 0.01 or 1e-3")
    read = float(number)
    if not math.isfinite(read):
        raise ValueError(f"{text!r}: {number} is beyond what a number can be")
    return read


def _of_metric(metric: Metric, field: str) -> float | None:
    ends = metric.interval or (None, None)
    null_mean = None if metric.null is None else metric.null.mean
    return {"value": metric.value, "lower95": ends[0], "upper95": ends[1], "null_mean": null_mean}[field]


def _of_class(of: ClassValue, field: str) -> float | None:
    ends = of.interval or (None, None)
    return {"value": of.value, "lower95": ends[0], "upper95": ends[1], "null_mean": of.null_mean}[field]


def _no_number(gate: Gate, note: str) -> GateOutcome:
    return GateOutcome(gate=gate.text, passed=False, actual=None, note=note)
