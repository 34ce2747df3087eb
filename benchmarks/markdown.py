"""The table as Markdown, with what a reader must know to judge it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rows import Bound, Row, verdict

__all__ = ["rows_to_markdown"]

_COLUMNS = ("workload", "numerics", "Fount", "compared with", "ratio (rounds)", "must", "aim", "verdict")
_HEAD = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
_VERDICTS = {"aim": "reached aim", "must": "reached must", "missed": "**missed**", "reported": "reported"}


def rows_to_markdown(rows: Sequence[Row], facts: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Write the table.

    Args:
        rows: in order.
        facts: of the machine; see `machine.machine_facts`.
        notes: footnotes.
    """
    machine = ", ".join(f"{facts[key]}" for key in ("cpu", "gpu", "instructions") if facts.get(key))
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    lines = [
        f"{machine}; {facts.get('cores')} cores. {versions}. Commit {facts.get('commit')}, {facts.get('date')}.",
        "",
        _HEAD,
        *map(_row, rows),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    cells = (
        row.workload, row.precision, row.value, row.reference, _ratio(row),
        _bound(row.bound, row.bound.must), _bound(row.bound, row.bound.aim), _VERDICTS[verdict(row)],
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _ratio(row: Row) -> str:
    if math.isnan(row.ratio):
        return "–"
    spread = f" ({row.spread[0]:.2f}–{row.spread[1]:.2f})" if row.spread and row.spread[0] != row.spread[1] else ""
    return f"{row.ratio:.2f}{spread}"


def _bound(bound: Bound, value: float | None) -> str:
    if value is None:
        return ""
    return f"{'≤' if bound.at_most else '≥'} {value:g}"
