"""`python -m benchmarks.augmentation`: measure, write `augmentation.json` and `augmentation.md`, print the table."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.augmentation.testbed import open_testbed
from benchmarks.augmentation.workloads import measure_all
from benchmarks.child import ROOT
from benchmarks.machine import cores, machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.plan import Layout

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "augmentation.json"
_KEPT = ROOT / "build" / "bench-augmentation"


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds, without the million rows.")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds; otherwise 5.")
@click.option("--workers", type=click.IntRange(min=1), default=cores(), help="Of each model; otherwise one a core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each worker.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file, with the table next to it.")
def main(quick: bool, rounds: int | None, workers: int, threads: int, out: Path | None) -> None:
    """Compare rows of the service with the same rows in one process, and files with the stream."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    count = rounds or (2 if quick else 5)
    log("packing, serving, drawing the data set")
    layout = Layout(workers=workers, threads=threads)
    with open_testbed(_KEPT, layout) as testbed:
        table, raw = measure_all(testbed, count, quick=quick)
    facts = machine_facts()
    notes = [
        f"{count} interleaved rounds; a ratio is the median over rounds of the ratio within a round, in brackets the "
        f"smallest and largest. {layout} workers × threads; 1 or {cores()} threads in the one process, the better.",
        "The one process computes the same rows with the same code and networks, without gateway, TorchServe or "
        "client, and the digest of the images is the same.",
    ]
    text = rows_to_markdown(table, facts, notes)
    file = out or (_KEPT / "quick.json" if quick else _OUT)
    document = {"machine": facts, "rows": [asdict(row) for row in table], "rounds": raw}
    write_results(file, document, text)


if __name__ == "__main__":
    main()
