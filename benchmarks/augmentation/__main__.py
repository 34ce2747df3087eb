"""`python -m benchmarks.augmentation`: measure, write `augmentation.json` and `augmentation.md`, print the table."""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.augmentation.testbed import AugmentationTestbed, open_testbed
from benchmarks.child import ROOT
from benchmarks.machine import cores, machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.rows import Bound, Row

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "augmentation.json"
_KEPT = ROOT / "build" / "bench-augmentation"
_SHARDS = 4
_NONE = {"real": "none"}
_SYNTHESIS = {"model": "mnist-cvae", "min_confidence": 0.5, "copy_quantile": 0.01}
_MEGABYTE = 1 << 20
_WARM_UP = 0.2  # share of the time of a million rows after which memory should not grow


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds, without the million rows.")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds; otherwise 5.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each worker.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file, with the table next to it.")
def main(quick: bool, rounds: int | None, threads: int, out: Path | None) -> None:
    """Compare rows of the service with the same rows in one process, and files with the stream."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    count = rounds or (2 if quick else 5)
    log("packing, serving, drawing the data set")
    with open_testbed(_KEPT, threads) as testbed:
        table, raw = _measure(testbed, count, quick=quick)
    facts = machine_facts()
    notes = [
        f"{count} interleaved rounds; a ratio is the median over rounds of the ratio within a round, in brackets the "
        f"smallest and largest. Torch's threads: {threads} a worker; 1 or {cores()} in the one process, the better.",
        "The one process computes the same rows with the same code and networks, without gateway, TorchServe or "
        "client, and the digest of the images is the same.",
    ]
    text = rows_to_markdown(table, facts, notes)
    file = out or (_KEPT / "quick.json" if quick else _OUT)
    document = {"machine": facts, "rows": [asdict(row) for row in table], "rounds": raw}
    write_results(file, document, text)


def _measure(testbed: AugmentationTestbed, rounds: int, *, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    size = 1 if quick else 4
    plans = {
        "transformed": testbed.plan("transformed", _NONE | {"target": {"factor": 4 * size}, "mix": {"transformed": 1}}),
        "synthesised": testbed.plan(
            "synthesised", _NONE | {"target": {"factor": size}, "mix": {"synthesised": 1}, "synthesis": _SYNTHESIS}
        ),
        "mixed": testbed.plan(
            "mixed",
            {"target": {"factor": 2 * size}, "mix": {"transformed": 1, "synthesised": 1}, "synthesis": _SYNTHESIS},
        ),
    }
    for name, plan in plans.items():
        _check_same(testbed, name, plan)
    table, raw = [], dict[str, Any]()
    for name, title, must in (
        ("transformed", f"transformed rows, {_SHARDS} shards", 0.8),
        ("synthesised", f"synthesised rows with both filters, {_SHARDS} shards", 0.7),
    ):
        seen = raw[name] = [_against_local(testbed, plans[name], size) for _ in range(rounds)]
        table.append(_row(title, seen, "rows/s in one process", must))
    seen = raw["parquet"] = [_against_stream(testbed, plans["mixed"], k) for k in range(rounds)]
    table.append(_row("mixed rows to Parquet", seen, "rows/s of the bare stream", 0.8))
    if not quick:
        table.append(_million(testbed, raw))
    return table, raw


def _check_same(testbed: AugmentationTestbed, name: str, plan: Path) -> None:
    """Compare the bytes of both sides before anything is measured."""
    served = testbed.puller.call({"plan": str(plan), "shards": 1})
    local = testbed.local.call({"plan": str(plan), "rows": served["rows"], "threads": 1})
    if served["digest"] != local["digest"]:
        raise click.ClickException(f"{name}: service and one process gave different bytes; nothing was measured")
    log(f"{name}: {served['rows']} rows, the same bytes")


def _against_local(testbed: AugmentationTestbed, plan: Path, size: int) -> dict[str, float]:
    local = max(
        testbed.local.call({"plan": str(plan), "rows": 10_000 * size, "threads": threads})["rows_per_s"]
        for threads in sorted({1, cores()})
    )
    served = testbed.puller.call({"plan": str(plan), "shards": _SHARDS})["rows_per_s"]
    log(f"  {served:.0f} rows/s, one process {local:.0f}")
    return {"fount": served, "reference": local}


def _against_stream(testbed: AugmentationTestbed, plan: Path, number: int) -> dict[str, float]:
    rows = testbed.puller.call({"plan": str(plan), "shards": _SHARDS})
    start = time.monotonic()
    _export(testbed, plan, f"parquet-{number}")
    exported = rows["rows"] / (time.monotonic() - start)
    log(f"  {exported:.0f} rows/s to Parquet, {rows['rows_per_s']:.0f} in the stream")
    return {"fount": exported, "reference": rows["rows_per_s"]}


def _export(testbed: AugmentationTestbed, plan: Path, name: str, watch: Callable[[int], None] | None = None) -> None:
    """Run `fount pull` as a user does, including the start of its process."""
    out = testbed.folder / name
    shutil.rmtree(out, ignore_errors=True)
    ticket = testbed.folder / f"{name}.ticket"
    from fount.v1 import augmentation_pb2

    ticket.write_bytes(augmentation_pb2.Plan.FromString(plan.read_bytes()).ticket)
    command = [sys.executable, "-m", "fount", "pull", str(ticket), "--out", str(out), "--jobs", str(_SHARDS),
               "--server", testbed.server]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if watch:
            watch(process.pid)
        time.sleep(0.2)
    if process.returncode:
        raise click.ClickException(f"fount pull exited with {process.returncode}")
    shutil.rmtree(out)


def _million(testbed: AugmentationTestbed, raw: dict[str, Any]) -> Row:
    """Export a million rows, and measure the growth of the exporter's memory after the first fifth of the time."""
    plan = testbed.plan("million", _NONE | {"target": {"factor": 100}, "mix": {"resampled": 1, "transformed": 1}})
    seen: list[tuple[float, int]] = []
    start = time.monotonic()

    def watch(pid: int) -> None:
        seen.append((time.monotonic() - start, int(psutil.Process(pid).memory_info().rss)))

    _export(testbed, plan, "million", watch)
    seconds = time.monotonic() - start
    early = max(memory for at, memory in seen if at < _WARM_UP * seconds)
    grown = max(memory for _, memory in seen) - early
    raw["million"] = {"seconds": seconds, "exporter_bytes": seen[:: max(1, len(seen) // 200)]}
    return Row(
        workload="1 000 000 rows to Parquet: the exporter's memory after the first fifth", precision="fp32",
        value=f"{grown / _MEGABYTE:+.1f} MB of {early / _MEGABYTE:.0f} MB, in {seconds:.0f} s",
        reference="MB; ratio is of 64 MB", ratio=max(0.0, grown / (64 * _MEGABYTE)), bound=Bound(must=1, at_most=True),
    )  # fmt: skip


def _row(title: str, seen: Sequence[Mapping[str, float]], reference: str, must: float) -> Row:
    ratios = [each["fount"] / each["reference"] for each in seen]
    value, compared = (statistics.median(each[side] for each in seen) for side in ("fount", "reference"))
    return Row(
        workload=title, precision="fp32", value=f"{value:.0f} rows/s", reference=f"{compared:.0f} {reference}",
        ratio=statistics.median(ratios), spread=(min(ratios), max(ratios)), bound=Bound(must=must),
    )  # fmt: skip


if __name__ == "__main__":
    main()
