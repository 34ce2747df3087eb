"""`python -m benchmarks.evaluation`: measure, write `evaluation.json` and `evaluation.md`, print the table."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.child import ROOT
from benchmarks.evaluation import embedding, report_time
from benchmarks.evaluation.interleaved import speed_to_row
from benchmarks.machine import machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.rows import Row

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "evaluation.json"
_KEPT = ROOT / "build" / "bench-evaluation"
_PARTS = ("moments", "neighbours", "embedding", "report")

Result = tuple[list[Row], Mapping[str, Any]]


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds, and a small report.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of EMBED; otherwise 5.")
@click.option("--only", type=click.Choice(_PARTS), multiple=True, help="Measure only this part. Repeatable.")
@click.option("--data", type=click.Path(path_type=Path), envvar="FOUNT_DATA",
              help="MNIST's folder; without it no report is made, and EMBED reads random pixels.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="JSON file, with the table next to it.")
def main(quick: bool, rounds: int | None, only: tuple[str, ...], data: Path | None, out: Path | None) -> None:
    """Compare statistics with other libraries and EMBED with one process, and time a whole report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _KEPT.mkdir(parents=True, exist_ok=True)
    if (missing := _find_problem(data)) is not None:
        log(f"{missing}: the report is left out, EMBED reads random pixels")
        data = None
    count = rounds or (2 if quick else 5)
    table, raw = list[Row](), dict[str, Any]()
    for name, (rows, values) in _measure(
        [each for each in _PARTS if not only or each in only], count, data, quick=quick
    ):
        table += rows
        raw[name] = values
    facts = machine_facts()
    notes = [
        "Statistics: how many times faster than the library on the same arrays, medians over interleaved rounds.",
        f"EMBED: {count} interleaved rounds, median of the ratio within a round, in brackets the smallest and largest; "
        "features are the same bytes. Only the request of a whole array has a bound, since evaluations send several "
        "requests at a time.",
        *([f"Not measured: {missing}."] if missing else []),
    ]
    text = rows_to_markdown(table, facts, notes)
    file = out or (_KEPT / "quick.json" if quick else _OUT)
    document = {"machine": facts, "rows": [asdict(row) for row in table], "rounds": raw}
    write_results(file, document, text)


def _measure(parts: list[str], rounds: int, data: Path | None, *, quick: bool) -> Iterator[tuple[str, Result]]:
    for part in parts:
        if part == "report" and data is None:
            continue
        log(part)
        if part in ("moments", "neighbours"):
            yield part, _speeds(part)
        elif part == "embedding":
            yield part, embedding.measure(_KEPT / part, rounds, data=data, quick=quick, log=log)
        elif data is not None:
            yield part, report_time.measure(_KEPT / part, data, quick=quick, log=log)


def _speeds(part: str) -> Result:
    """Time statistics; the compared libraries are slow to import, so they are imported here."""
    if part == "moments":
        from benchmarks.evaluation import speed_moments

        found = speed_moments.measure()
    else:
        from benchmarks.evaluation import speed_neighbours

        found = speed_neighbours.measure()
    return [speed_to_row(each) for each in found], {"speeds": [asdict(each) for each in found]}


def _find_problem(data: Path | None) -> str | None:
    """Explain why MNIST cannot be read; None when it can."""
    from handlers.recipes.data.load import DataError, load_data

    if data is None:
        return "no --data was given"
    try:
        load_data("mnist", data)
    except DataError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()
