"""Values: whether pictures are finite and within the card's range, under every label and at every parameter's ends.

The second half of the check `output`; the first has made sure of shape and type.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from handlers.checks.finding import Finding, failed, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.pixels import Float32s, find_finite_rows, find_rows_within
from handlers.execution.rows import SampleRows
from handlers.family import Draw

__all__ = ["check_values"]

CHECK = "output"
_SEVERAL = 7
_SHARE_OF_LIMIT = 0.25  # of the time that a check may take
_MOST_NAMED = 3


@dataclass(kw_only=True)
class _Span:
    """What was found of many pictures: the ends of their pixels, and labels with a value that is not finite."""

    low: float = np.inf
    high: float = -np.inf
    pictures: int = 0
    wrong_labels: list[int] = dataclasses.field(default_factory=list)

    def add(self, results: Float32s, labels: list[int]) -> None:
        """Take the pictures of one batch in."""
        finite = find_finite_rows(results)
        self.pictures += len(results)
        self.wrong_labels += [label for label, good in zip(labels, finite, strict=True) if not good]
        if finite.any():
            self.low, self.high = (
                min(self.low, float(results[finite].min())),
                max(self.high, float(results[finite].max())),
            )


def check_values(subject: Subject) -> Finding:
    """Draw every label and parameter, or read many pictures, and judge the values."""
    if not subject.samples:
        return _check_reading(subject)
    span = _draw_labels(subject)
    if span.wrong_labels:
        return _say_not_finite(subject, span)
    if finding := _find_wrong_range(subject, span.low, span.high, "") or _find_wrong_parameter(subject):
        return finding
    return _judge_span(subject, span)


def _draw_labels(subject: Subject) -> _Span:
    """Draw every label in turn, as often as the time allows, once at least four batches."""
    span, classes = _Span(), len(subject.card.classes)
    size = subject.batch(32)
    stop = time.monotonic() + _SHARE_OF_LIMIT * subject.time_limit_s
    wanted = max(4 * size, 2 * classes)
    for start in range(0, wanted, size):
        rows = subject.rows(size, start=start)
        assert isinstance(rows, SampleRows)
        span.add(subject.run(rows), [0] * size if rows.labels is None else rows.labels.tolist())
        if time.monotonic() > stop:
            break
    return span


def _say_not_finite(subject: Subject, span: _Span) -> Finding:
    classes, wrong = subject.card.classes, sorted(set(span.wrong_labels))
    under = ""
    if classes:
        named = ", ".join(repr(classes[label]) for label in wrong[:_MOST_NAMED])
        under = f" under label{'s' * (len(wrong) > 1)} {named}" + (" and more" if len(wrong) > _MOST_NAMED else "")
    seen = f"{len(span.wrong_labels)} of {span.pictures} pictures hold NaN or infinite values{under}"
    change = "look for a division by zero, a log or root of a negative, or weights of a diverged training"
    return failed(CHECK, seen, change)


def _find_wrong_range(subject: Subject, low: float, high: float, when: str) -> Finding | None:
    ends = np.array([[low], [high]], np.float32)
    if find_rows_within(ends, subject.card.sample.value_range).all():
        return None
    told = list(subject.card.sample.value_range)
    seen = f"pixels{when} reach from {low:.4g} to {high:.4g}, the card's sample.value_range is {told}"
    return failed(CHECK, seen, _remedy_for_range(low, high, subject.card.sample.value_range))


def _remedy_for_range(low: float, high: float, value_range: tuple[float, float]) -> str:
    for ends in ((0.0, 1.0), (-1.0, 1.0)):
        if value_range != ends and find_rows_within(np.array([[low], [high]], np.float32), ends).all():
            return f"set sample.value_range: [{ends[0]}, {ends[1]}] in model.yaml"
    if high > 2 and 0 <= low <= high <= 255:
        return "divide by 255, or set sample.value_range: [0.0, 255.0] in model.yaml"
    ending = {(0.0, 1.0): "end with torch.sigmoid", (-1.0, 1.0): "end with torch.tanh"}.get(value_range, "scale it")
    return f"{ending}, or set sample.value_range in model.yaml to what the module gives"


def _find_wrong_parameter(subject: Subject) -> Finding | None:
    """Draw at both ends of every parameter the card lists."""
    for name, parameter in subject.card.parameters.items():
        for end in (parameter.min, parameter.max):
            value = int(end) if name in ("top_k", "steps") else end
            draw: Draw = dataclasses.replace(subject.draw, **{str(name): value})  # type: ignore[arg-type]
            results = subject.run(subject.rows(subject.batch(_SEVERAL)), draw=draw)
            when = f" at {name} {value:g}"
            if not find_finite_rows(results).all():
                change = f"narrow parameters.{name} in model.yaml to where the model works"
                return failed(CHECK, f"pictures hold NaN or infinite values{when}", change)
            if finding := _find_wrong_range(subject, float(results.min()), float(results.max()), when):
                change = f"clamp the result, or narrow parameters.{name} in model.yaml"
                return dataclasses.replace(finding, change=change)
    return None


def _judge_span(subject: Subject, span: _Span) -> Finding:
    sample = subject.card.sample
    shape = f"{sample.height}×{sample.width}×{sample.channels}"
    seen = f"{shape} floats, pixels from {span.low:.4g} to {span.high:.4g} in {span.pictures} pictures"
    low, high = sample.value_range
    numbers = {"low": span.low, "high": span.high}
    if span.low >= (low + high) / 2 - 1e-3 or span.high <= (low + high) / 2 + 1e-3:
        change = "set sample.value_range in model.yaml to what the module gives; else pictures come out pale or dark"
        return warned(CHECK, f"{seen}: half of the card's value_range {[low, high]} is never used", change)
    return passed(CHECK, seen, numbers=numbers)


def _check_reading(subject: Subject) -> Finding:
    results = subject.run_in_batches(subject.rows(2 * subject.batch(32)))
    if not find_finite_rows(results).all():
        return failed(CHECK, "results hold NaN or infinite values", "look for a division by zero, or train again")
    if subject.transforms:
        return passed(CHECK, f"pictures of {results.shape[1]} values")
    if "CLASSIFY" not in subject.card.operations:
        return passed(CHECK, f"embeddings of {results.shape[1]} values")
    classes = len(subject.card.classes)
    probabilities = results[:, :classes]
    sums = probabilities.sum(axis=1)
    if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        seen = (
            f"probabilities of a picture sum to {sums.min():.4g} to {sums.max():.4g}, least {probabilities.min():.4g}"
        )
        return failed(CHECK, seen, "end classify with torch.softmax(..., dim=1)")
    return passed(CHECK, f"probabilities of {classes} classes and {results.shape[1] - classes} embedding values")
