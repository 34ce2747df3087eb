"""Whether held-out rows are held out: which of them the generator may have seen, and what that makes unmeasurable.

Evidence enters; the sentences and numbers that every report shows leave, and metrics without the values that rest on
unfit rows. Rows that equal a training row were left out before. Those that nearly equal one are kept, since simple
pictures may be alike by chance, but named; where there are many of them, copies cannot be told from real rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from service.evaluation.evidence import FEWEST_HELD_OUT, Evidence
from service.evaluation.results import ClassValue, Metric, Verdict
from service.evaluation.statistics.copies import copy_ratios
from service.evaluation.statistics.rows import Int64s

__all__ = [
    "COPY_RATIO", "describe_real_rows", "nearly_equal", "real_rows_json", "without_unmeasurable",
]  # fmt: skip

COPY_RATIO = 0.25
"""A row four times nearer to one training row than to the next ones is like a copy of it, and not like a real row."""

_NEAR_LEVELS = 8.0  # root mean square over pixels, of 255: a picture that was compressed or saved again
_NAMED, _STORED = 20, 1000  # rows in a sentence, and in the JSON report
_ABSOLUTE = frozenset({"exact_copies"})  # metrics that compare with training rows alone


def nearly_equal(evidence: Evidence) -> Int64s:
    """Return the numbers of held-out rows that nearly equal one training row; none without the memorisation panel."""
    nearest = evidence.nearest.get("pixels")
    if nearest is None:
        return np.empty(0, np.int64)
    distances = nearest.held_out_distances
    pixels = int(np.prod(evidence.held_out.images.shape[1:]))
    is_near = (distances[:, 0] > 0) & (distances[:, 0] <= _NEAR_LEVELS * np.sqrt(pixels))
    found: Int64s = evidence.held_out.numbers[is_near & (copy_ratios(distances) < COPY_RATIO)]
    return found


def describe_real_rows(evidence: Evidence) -> str:
    """Describe in sentences which real rows equal others; "" where none does."""
    return " ".join(_sentences(evidence))


def real_rows_json(evidence: Evidence) -> dict[str, Any]:
    """Return the same as numbers, for reports."""

    def rows(numbers: Int64s) -> dict[str, Any]:
        return {"count": len(numbers), "rows": numbers[:_STORED].tolist()}

    found = evidence.duplicates
    held_out = {"equal_to_training": rows(found.leaked), "nearly_equal_to_training": rows(nearly_equal(evidence))}
    return {
        "held_out": {**held_out, "repeated": found.repeated_held_out},
        "training": {"repeated": found.repeated_training},
    }


def _list_rows(numbers: Sequence[int] | Int64s) -> str:
    """List row numbers, the first of many: "row 3", "rows 3, 5 and 1,200 more"."""
    shown = ", ".join(str(int(number)) for number in numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return f"row{'' if len(numbers) == 1 else 's'} {shown}{more}"


def without_unmeasurable(metrics: Sequence[Metric], evidence: Evidence) -> list[Metric]:
    """Remove the values of metrics that compare with held-out rows, where too few of these are held out."""
    if evidence.duplicates.held_out_left >= FEWEST_HELD_OUT:
        return list(metrics)
    note = (
        f"Only {evidence.duplicates.held_out_left} held-out rows do not equal a training row, and {FEWEST_HELD_OUT} "
        "are needed; name a held-out split that the generator was not trained on"
    )
    return [replace(each, null=None) if each.name in _ABSOLUTE else _without_value(each, note) for each in metrics]


def _without_value(metric: Metric, note: str) -> Metric:
    classes = tuple(
        ClassValue(class_name=each.class_name, value=None, verdict=Verdict.NOT_MEASURABLE) for each in metric.classes
    )
    return replace(
        metric, value=None, interval=None, null=None, verdict=Verdict.NOT_MEASURABLE, note=note, classes=classes
    )


def _sentences(evidence: Evidence) -> Iterator[str]:
    found, near = evidence.duplicates, nearly_equal(evidence)
    if count := len(found.leaked):
        left_out = " and left out" if found.held_out_left >= FEWEST_HELD_OUT else ""
        yield (
            f"{_count(count, 'held-out')} equal to a training row, pixel for pixel, so not held out{left_out}: "
            f"{_list_rows(found.leaked)}."
        )
    if count := len(near):
        yield (
            f"{_count(count, 'held-out')} nearly equal to a training row (within {_NEAR_LEVELS:g} levels): "
            f"{_list_rows(near)}."
        )
    for count, split in ((found.repeated_held_out, "held-out"), (found.repeated_training, "training")):
        if count:
            yield f"{_count(count, split)} equal to an earlier one, so compared once."


def _count(count: int, split: str) -> str:
    return f"{count:,} {split} row is" if count == 1 else f"{count:,} {split} rows are"
