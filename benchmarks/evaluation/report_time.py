"""The time of a whole report on the real stack: `mnist-cgan` against MNIST, by stage, and the longest silence.

`fount serve` with everything it starts: TorchServe, gateway, one runner, SQLite. The first evaluation has no stored
reference, so it also reads 70 000 real rows; the second, of another seed, uses them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import ROOT
from benchmarks.fount_servers import serve
from benchmarks.rows import Bound, Row
from fount import Client
from fount.evaluation.types import EvaluationInfo

__all__ = ["measure", "watch"]

_GENERATOR, _CLASSIFIER = "mnist-cgan", "mnist-classifier"
_COUNT, _QUICK_COUNT = 10_000, 1_000
_MUST_S, _SILENT_S = 180.0, 5.0


def measure(
    folder: Path, data: Path, *, quick: bool, log: Callable[[str], None] = print
) -> tuple[list[Row], dict[str, Any]]:
    """Serve, evaluate and watch.

    Args:
        folder: for the model store, state and logs; emptied.
        data: folder of MNIST.
        quick: fewer samples, and no second evaluation.
        log: called with progress messages.

    Returns:
        The rows of the table, and seconds by stage of each evaluation.

    Raises:
        RuntimeError: an evaluation did not succeed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in (_GENERATOR, _CLASSIFIER):
        shutil.copytree(ROOT / "model_store" / name, folder / "store" / name)
    mnist = data / "mnist" if (data / "mnist").is_dir() else data
    count = _QUICK_COUNT if quick else _COUNT
    with serve(folder / "store", {"mnist": mnist}, folder) as server, Client(server) as client:
        seen = {"first": _evaluate(client, count, 1, folder, log)}
        if not quick:
            seen["references kept"] = _evaluate(client, count, 2, folder, log)
    rows = [row for name, each in seen.items() for row in _rows(name, count, each)]
    return rows, {"samples": count, "evaluations": seen}


def _evaluate(client: Client, count: int, seed: int, folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    start = time.monotonic()
    job = client.evaluate(
        _GENERATOR, reference="mnist", count=count, seed=seed, extractor=_CLASSIFIER, classifier=_CLASSIFIER
    )
    stages: dict[str, float] = {}
    silent = 0.0
    for stage, seconds in watch(client, job):
        stages[stage] = stages.get(stage, 0.0) + seconds
        silent = max(silent, seconds)
    total = time.monotonic() - start
    start = time.monotonic()
    report = client.evaluation_report(job.id, "html").data
    rendered = time.monotonic() - start
    (folder / f"report-{seed}.html").write_bytes(report)
    log(f"  {count} samples: {total:.1f} s, longest silence {silent:.1f} s; report {len(report)} bytes")
    return {
        "seconds": total, "silent_s": silent, "stages_s": stages, "report_s": rendered, "report_bytes": len(report)
    }  # fmt: skip


def watch(client: Client, job: EvaluationInfo) -> Iterator[tuple[str, float]]:
    """Watch an evaluation to its end.

    Returns:
        For each message: the stage before it, and the seconds since the previous message.

    Raises:
        RuntimeError: it did not succeed.
    """
    last, stage, state = time.monotonic(), "queued", job
    for state in client.watch_evaluation(job.id):
        now = time.monotonic()
        yield stage, now - last
        last, stage = now, state.progress.stage or state.state
    if state.state != "succeeded":
        raise RuntimeError(f"the evaluation ended as {state.state}: {state.state_reason}")


def _rows(name: str, count: int, seen: dict[str, Any]) -> list[Row]:
    stages = sorted(seen["stages_s"].items(), key=lambda each: -each[1])
    listed = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in stages[:6])
    return [
        Row(
            workload=f"report of {count} samples of {_GENERATOR}, {name}", precision="fp32",
            value=f"{seen['seconds']:.0f} s ({listed})", reference=f"s; ratio is of {_MUST_S:.0f} s",
            ratio=seen["seconds"] / _MUST_S, bound=Bound(must=1.0, at_most=True),
        ),
        Row(
            workload=f"its longest silence, {name}", precision="fp32", value=f"{seen['silent_s']:.1f} s",
            reference=f"s; ratio is of {_SILENT_S:.0f} s", ratio=seen["silent_s"] / _SILENT_S,
            bound=Bound(must=1.0, at_most=True),
        ),
    ]  # fmt: skip
