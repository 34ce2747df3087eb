"""How long a whole report takes on the real stack: `mnist-cgan` against MNIST, by stage, and how long nothing is said.

`fount serve` with everything it starts by itself: TorchServe, gateway, one runner, SQLite. The first evaluation finds
no reference kept, so it reads 70 000 real rows too; the second, of another seed, finds them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import ROOT
from benchmarks.imbalance.serving import serve
from benchmarks.rows import Bound, Row
from fount import Client
from fount.evaluation.types import EvaluationInfo

__all__ = ["measure", "watch"]

_GENERATOR, _CLASSIFIER = "mnist-cgan", "mnist-classifier"
_COUNT, _QUICK_COUNT = 10_000, 1_000
_MUST_S, _SILENT_S = 180.0, 5.0


def measure(
    folder: Path, data: Path, *, quick: bool, say: Callable[[str], None] = print
) -> tuple[list[Row], dict[str, Any]]:
    """Serve, evaluate, and watch.

    Args:
        folder: for the model store, state and logs; emptied.
        data: folder of MNIST.
        quick: fewer samples, and no second evaluation.
        say: told of every stage.

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
        seen = {"first": _evaluate(client, count, 1, folder, say)}
        if not quick:
            seen["references kept"] = _evaluate(client, count, 2, folder, say)
    rows = [row for name, each in seen.items() for row in _rows(name, count, each)]
    return rows, {"samples": count, "evaluations": seen}


def _evaluate(client: Client, count: int, seed: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    begun = time.monotonic()
    asked = client.evaluate(
        _GENERATOR, reference="mnist", count=count, seed=seed, extractor=_CLASSIFIER, classifier=_CLASSIFIER
    )
    stages: dict[str, float] = {}
    silent = 0.0
    for stage, seconds, gap in watch(client, asked):
        stages[stage] = stages.get(stage, 0.0) + seconds
        silent = max(silent, gap)
    total = time.monotonic() - begun
    begun = time.monotonic()
    report = client.evaluation_report(asked.id, "html").data
    rendered = time.monotonic() - begun
    (folder / f"report-{seed}.html").write_bytes(report)
    say(f"  {count} samples: {total:.1f} s, longest silence {silent:.1f} s; report {len(report)} bytes")
    return {
        "seconds": total, "silent_s": silent, "stages_s": stages, "report_s": rendered, "report_bytes": len(report)
    }  # fmt: skip


def watch(client: Client, asked: EvaluationInfo) -> Iterator[tuple[str, float, float]]:
    """Watch an evaluation to its end.

    Returns:
        For each message: the stage that was under way before it, the seconds since the last message, twice: the first
        counts towards the stage, the second is how long nothing was said.

    Raises:
        RuntimeError: it did not succeed.
    """
    last, stage, state = time.monotonic(), "queued", asked
    for state in client.watch_evaluation(asked.id):
        now = time.monotonic()
        yield stage, now - last, now - last
        last, stage = now, state.progress.stage or state.state
    if state.state != "succeeded":
        raise RuntimeError(f"the evaluation ended as {state.state}: {state.state_reason}")


def _rows(name: str, count: int, seen: dict[str, Any]) -> list[Row]:
    stages = sorted(seen["stages_s"].items(), key=lambda each: -each[1])
    told = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in stages[:6])
    return [
        Row(
            workload=f"report of {count} samples of {_GENERATOR}, {name}", precision="fp32",
            value=f"{seen['seconds']:.0f} s ({told})", reference=f"s; ratio is of {_MUST_S:.0f} s",
            ratio=seen["seconds"] / _MUST_S, bound=Bound(must=1.0, at_most=True),
        ),
        Row(
            workload=f"its longest silence, {name}", precision="fp32", value=f"{seen['silent_s']:.1f} s",
            reference=f"s; ratio is of {_SILENT_S:.0f} s", ratio=seen["silent_s"] / _SILENT_S,
            bound=Bound(must=1.0, at_most=True),
        ),
    ]  # fmt: skip
