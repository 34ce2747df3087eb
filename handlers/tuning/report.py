"""The report of `fount tune`: a table for people, a document for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handlers.tuning.measuring import Measurement

__all__ = ["to_document", "to_table"]

_HEADER = ("workers", "threads", "precision", "layout", "compiled", "per second", "batch", "ms for 8", "golden samples")
_TEXT_COLUMNS = (2, 3, 4, 8)


def to_table(ordered: Sequence[Measurement], dropped: Sequence[Measurement]) -> str:
    """Write what was measured, best first, then what was dropped and why."""
    rows = [_HEADER, *(_row(one) for one in ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(_align(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"dropped: {one.candidate}: {one.dropped}" for one in dropped)])


def to_document(
    model: str, ordered: Sequence[Measurement], dropped: Sequence[Measurement], written: Path | None
) -> dict[str, Any]:
    """Make the JSON document."""
    return {
        "model": model,
        "written": str(written) if written else None,
        "best": dataclasses.asdict(ordered[0].candidate) if ordered else None,
        "measured": [_measured(one) for one in ordered],
        "dropped": [dataclasses.asdict(one.candidate) | {"reason": one.dropped} for one in dropped],
    }


def _row(one: Measurement) -> tuple[str, ...]:
    how = one.candidate
    note = "" if one.small_batch == 8 else f" (for {one.small_batch})"
    return (
        str(how.workers),
        str(how.threads),
        how.precision,
        how.layout,
        "yes" if how.compiled else "no",
        f"{one.best_per_second:,.0f}",
        str(one.best_batch),
        f"{1000 * one.small_s:.2f}{note}",
        one.golden,
    )


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _measured(one: Measurement) -> dict[str, Any]:
    return dataclasses.asdict(one.candidate) | {
        "per_second": {str(size): rate for size, rate in one.per_second.items()},
        "seconds_per_batch": {str(size): seconds for size, seconds in one.seconds.items()},
        "best_batch": one.best_batch,
        "golden": one.golden,
    }
