"""`python -m benchmarks`: measure, write `latest.json` and `latest.md`, print the table."""

from __future__ import annotations

import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.augmentation.workloads import measure_transformed
from benchmarks.child import ROOT, ChildError
from benchmarks.machine import cores, machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.plan import OTHERS_WORKLOADS, WORKLOADS, Plan, layouts, precisions_of, quick_plan
from benchmarks.processes import StartError
from benchmarks.records import Record, Records
from benchmarks.rows import Row, rows_of, verdict
from benchmarks.testbed import Testbed, check_bytes, open_testbed
from benchmarks.workloads import measure_limit, measure_round, warm_up

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "latest.json"
_KEPT = ROOT / "build" / "bench"


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds in fp32 with one layout, for a rough result.")
@click.option("--only", metavar="WORKLOAD,…", default="", help=f"Some of {', '.join(WORKLOADS)}.")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds; otherwise 5.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "both"]), default="both", show_default=True)
@click.option("--cores", "count", type=click.IntRange(min=1), help="N of the layouts 1×N and N×1, workers × threads; "
              "otherwise every core. On a GPU, how many workers may share it.")  # fmt: skip
@click.option("--peers/--no-peers", default=True, help="Whether mosec and LitServe are measured too.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file, with the table next to it; otherwise "
              "benchmarks/results/latest.json, or build/bench/quick.json for --quick.")  # fmt: skip
def main(
    quick: bool, only: str, rounds: int | None, precision: str, count: int | None, peers: bool, out: Path | None
) -> None:  # fmt: skip
    """Measure Fount against its hardware, against TorchServe alone and against mosec and LitServe."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server ends
    plan = replace(_plan(quick, only, rounds, precision, count or cores()), peers=peers)
    if not quick:  # profiles measured on a busy machine would be kept
        shutil.rmtree(_KEPT / "state", ignore_errors=True)
    records: list[Record] = []
    checks: list[dict[str, Any]] = []
    start = time.monotonic()
    failure: Exception | None = None
    try:
        for each in plan.precisions if plan.workloads != ("transformed",) else ():
            log(f"{each}: packing and starting servers")
            with open_testbed(plan, each, _KEPT, log) as testbed:
                for record in _measure(testbed):
                    records.append(record)
                checks.append(_checks(testbed))
        if plan.has("transformed"):
            log("transformed rows")
            records += measure_transformed(_KEPT / "augmentation", plan.rounds, layouts(count or cores())[-1])
    except (StartError, ChildError) as error:
        failure = error
    facts = machine_facts() | {"seconds": round(time.monotonic() - start)}
    if failure is None:
        _write(out or (_KEPT / "quick.json" if quick else _OUT), plan, facts, records, checks)
        return
    if records:  # keep the completed records of a long run
        _write(_KEPT / "partial.json", plan, facts, records, checks)
    raise click.ClickException(str(failure))


def _plan(quick: bool, only: str, rounds: int | None, precision: str, count: int) -> Plan:
    chosen = tuple(each for each in WORKLOADS if not only or each in only.split(","))
    if unknown := set(only.split(",")) - WORKLOADS.keys() - {""}:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(WORKLOADS)}", param_hint="--only")
    if quick:
        return quick_plan(chosen, count)
    return Plan(rounds=rounds or 5, precisions=precisions_of(precision), workloads=chosen, layouts=layouts(count))


def _measure(testbed: Testbed) -> Iterator[Record]:
    check_bytes(testbed)
    warm_up(testbed, log)
    for number in range(testbed.plan.rounds):
        log(f"{testbed.precision} round {number + 1}: limit")
        yield from measure_limit(testbed, number)
        yield from measure_round(testbed, number, log)


def _checks(testbed: Testbed) -> dict[str, Any]:
    """Summarise numerics and disturbances of one precision."""
    return {
        "precision": testbed.precision,
        "numerics": testbed.numerics,
        "limit": {str(layout): limit.variant for layout, limit in testbed.limits.items()},
        "limit_samples_per_s_by_exec_batch": {
            str(layout): limit.by_size for layout, limit in testbed.limits.items()
        },
        "differences": testbed.differences,
        "peers": [f"{each.name} {each}" for each in testbed.peers],
        "idle_servers_cores": _spread([each.idle_share for each in testbed.windows]),
        "unrelated_processes_cores": _spread([each.unrelated_share for each in testbed.windows]),
    }  # fmt: skip


def _spread(shares: Sequence[float]) -> dict[str, float]:
    if not shares:
        return {}
    return {"median": round(statistics.median(shares), 3), "most": round(max(shares), 3)}


def _notes(plan: Plan, checks: Sequence[dict[str, Any]]) -> list[str]:
    notes = [
        f"{plan.rounds} interleaved rounds; a ratio is the median over rounds of the ratio within a round, in brackets "
        "the smallest and largest. W×T is workers × threads; each side is measured in every layout, the better counts.",
        "The limit is one process without a server: noise, network (eager, with batch normalisation folded, or "
        "compiled, whichever is fastest in a trial), rounding to uint8, in the executed batch that is fastest (the two "
        "best of the trial are measured in each round); or as many such processes as cores with one thread each, "
        "whichever gives more.",
        "TorchServe, mosec and LitServe run the plain module, eager, in inference mode.",
        "Before anything is measured, every contender gave the same samples for the same addresses, in every layout: "
        "Fount and the folded limit the same bytes, the others at most one level apart in at most 1 % of the pixels.",
        "Worker CPU outside the model is its CPU time beyond that of its executed batches in the limit's process; "
        "samples of calls beyond the largest batch count as in the cheapest batch.",
    ]
    if "bf16" in plan.precisions:
        notes.append("bf16: the shipped card allows fp32 alone (bf16 moves pixels by up to 12 levels, 2 are allowed); "
                     "these rows serve a copy whose card allows it and whose golden samples are bf16's.")  # fmt: skip
    if plan.peers and plan.has(*OTHERS_WORKLOADS) and not all(each["peers"] for each in checks):
        notes.append("mosec and LitServe could not be installed and were not measured.")
    for each in checks:
        variants = ", ".join(f"{variant} ({layout})" for layout, variant in each["limit"].items())
        notes.append(f"{each['precision']}: fastest variants of the limit: {variants}.")
        idle, unrelated = each["idle_servers_cores"], each["unrelated_processes_cores"]
        if idle:
            notes.append(f"{each['precision']}: servers without load used {idle['median']:.2f} cores (at most "
                         f"{idle['most']:.2f}), unrelated processes {unrelated['median']:.2f} (at most "
                         f"{unrelated['most']:.2f}), steal included.")  # fmt: skip
    return notes


def _write(
    out: Path, plan: Plan, facts: dict[str, Any], records: Sequence[Record], checks: Sequence[dict[str, Any]]
) -> None:
    rows = rows_of(Records(records))
    table = rows_to_markdown(rows, facts, _notes(plan, checks))
    document = {
        "machine": facts,
        "plan": asdict(plan) | {"layouts": [str(each) for each in plan.layouts]},
        "checks": checks,
        "rows": [_row_to_json(row) for row in rows],
        "rounds": [asdict(each) for each in records],
    }
    write_results(out, document, table)


def _row_to_json(row: Row) -> dict[str, Any]:
    ratio = None if row.ratio != row.ratio else row.ratio
    return asdict(row) | {"ratio": ratio, "verdict": verdict(row)}


if __name__ == "__main__":
    main()
