"""One worker process of a candidate: it loads the model as TorchServe's worker does, waits for the others, and runs.

Events are JSON lines on standard output: {"reason", "golden"} when loaded, then {"seconds": {size: median}}. Whatever
the model's code prints goes to standard error. A line on standard input starts the measurement.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

from fount.address import Addresses
from handlers.execution.probes import make_probe_rows
from handlers.loading.load import Engine, load_model
from handlers.models import load_family

__all__ = ["main", "time_sizes"]

_MIN_ROUNDS = 3


def main(folder: str, seconds: str) -> None:
    """Load the model, wait for the start signal, and measure.

    Args:
        folder: an unpacked archive; settings come from the environment.
        seconds: how long to measure.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as events:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        model = load_model(Path(folder), os.environ, None, load_family)
        print(json.dumps({"reason": model.reason, "golden": model.golden}), file=events)
        if model.engine is not None and sys.stdin.readline():
            print(json.dumps({"seconds": time_sizes(model.engine, float(seconds))}), file=events)


def time_sizes(engine: Engine, seconds: float) -> dict[int, float]:
    """Run all sizes in turn for a time, at least three times.

    Returns:
        The median seconds of a batch of each size.
    """
    times: dict[int, list[float]] = {size: [] for size in engine.profile.exec_batch_sizes}
    operation = engine.network.card.operations[0]
    card = engine.network.card
    rows = {size: make_probe_rows(card, operation, Addresses.of_range(0, 0, size)) for size in times}
    started, rounds = time.perf_counter(), 0
    while rounds < _MIN_ROUNDS or time.perf_counter() - started < seconds:
        for size, spent in times.items():
            start = time.perf_counter()
            engine.network.run(operation, rows[size])
            spent.append(time.perf_counter() - start)
        rounds += 1
    return {size: statistics.median(spent) for size, spent in times.items()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
