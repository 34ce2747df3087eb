"""Workloads of augmentation: rates of pulled rows compared with one process, and of files with the bare stream."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.augmentation.testbed import AugmentationTestbed, open_testbed
from benchmarks.child import ROOT
from benchmarks.machine import cores
from benchmarks.output import log
from benchmarks.plan import Layout
from benchmarks.records import Record
from benchmarks.rows import TRANSFORMED, Bound, Row

__all__ = ["measure_all", "measure_transformed"]

_SHARDS = 4
_TRANSFORMED = (f"transformed rows, {_SHARDS} shards", TRANSFORMED)
_SYNTHESISED = (f"synthesised rows with both filters, {_SHARDS} shards", Bound(must=0.7))
_NONE = {"real": "none"}
_SYNTHESIS = {"model": "mnist-cvae", "min_confidence": 0.5, "copy_quantile": 0.01}
_MEGABYTE = 1 << 20
_WARM_UP = 0.2  # share of the time of a million rows after which memory should not grow


def measure_transformed(folder: Path, rounds: int, layout: Layout) -> Iterator[Record]:
    """Start the processes, and measure transformed rows alone, for the main table."""
    with open_testbed(folder, layout) as testbed:
        plan = _transformed_plan(testbed, 4)
        _check_same(testbed, "transformed", plan)
        for number in range(rounds):
            for side, rate in _against_local(testbed, plan, 4).items():
                of_side = str(layout) if side == "fount" else "the better number of threads"
                yield Record(
                    round=number, precision="fp32", workload="transformed", contender=side, layout=of_side,
                    values={"rows_per_s": rate},
                )  # fmt: skip


def measure_all(testbed: AugmentationTestbed, rounds: int, *, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """Measure every row; returns them and each round."""
    size = 1 if quick else 4
    plans = {
        "transformed": _transformed_plan(testbed, size),
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
    for name, (title, bound) in (("transformed", _TRANSFORMED), ("synthesised", _SYNTHESISED)):
        seen = raw[name] = [_against_local(testbed, plans[name], size) for _ in range(rounds)]
        table.append(_row(title, bound, seen, "rows/s in one process"))
    seen = raw["parquet"] = [_against_stream(testbed, plans["mixed"], k) for k in range(rounds)]
    table.append(_row("mixed rows to Parquet", Bound(must=0.8), seen, "rows/s of the bare stream"))
    if not quick:
        table.append(_million(testbed, raw))
    return table, raw


def _transformed_plan(testbed: AugmentationTestbed, size: int) -> Path:
    return testbed.plan("transformed", _NONE | {"target": {"factor": 4 * size}, "mix": {"transformed": 1}})


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
    return {"fount": served, "one process": local}


def _against_stream(testbed: AugmentationTestbed, plan: Path, number: int) -> dict[str, float]:
    rows = testbed.puller.call({"plan": str(plan), "shards": _SHARDS})
    start = time.monotonic()
    _export(testbed, plan, f"parquet-{number}")
    exported = rows["rows"] / (time.monotonic() - start)
    log(f"  {exported:.0f} rows/s to Parquet, {rows['rows_per_s']:.0f} in the stream")
    return {"fount": exported, "stream": rows["rows_per_s"]}


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


def _row(title: str, bound: Bound, seen: Sequence[Mapping[str, float]], reference: str) -> Row:
    ours, theirs = zip(*(each.values() for each in seen), strict=True)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Row(
        workload=title, precision="fp32", value=f"{statistics.median(ours):.0f} rows/s",
        reference=f"{statistics.median(theirs):.0f} {reference}", ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)), bound=bound,
    )  # fmt: skip
