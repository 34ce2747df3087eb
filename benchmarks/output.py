"""Output of the benchmarks: progress messages, the Markdown table, and the files of results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.rows import Bound, Row, verdict

__all__ = ["log", "rows_to_markdown", "write_results"]

_COLUMNS = ("workload", "numerics", "Fount", "compared with", "ratio (rounds)", "must", "aim", "verdict")
_HEAD = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
_VERDICTS = {"aim": "reached aim", "must": "reached must", "missed": "**missed**", "missed aim": "missed aim",
             "reported": "reported"}  # fmt: skip


def log(text: str) -> None:
    """Print a progress message with the time to standard error."""
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def write_results(out: Path, document: Mapping[str, Any], text: str) -> None:
    """Write the results as JSON to `out` and as Markdown next to it, and print the Markdown."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


def rows_to_markdown(rows: Sequence[Row], facts: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Format the table.

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
