"""One worker of a candidate, in a process of its own: it loads as TorchServe's would, waits for its mates, and runs.

Events leave on standard output, a JSON line each: {"reason", "golden"} when loaded, then {"seconds": {size: median}}.
Whatever the model's code prints goes to standard error. A line on standard input is the sign to begin.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

from fount.address import Addresses
from handlers.loading.load import Engine, load_model
from handlers.models import load_family
from handlers.verification.probes import make_probe_rows

__all__ = ["main", "time_sizes"]

_LEAST_ROUNDS = 3


def main(folder: str, seconds: str) -> None:
    """Load, wait, measure.

    Args:
        folder: an unpacked archive; settings are those of the environment.
        seconds: how long to measure.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as events:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        model = load_model(Path(folder), os.environ, None, load_family)
        print(json.dumps({"reason": model.reason, "golden": model.golden}), file=events)
        if model.engine is not None and sys.stdin.readline():
            print(json.dumps({"seconds": time_sizes(model.engine, float(seconds))}), file=events)


def time_sizes(engine: Engine, seconds: float) -> dict[int, float]:
    """Run every size in turn for so long, three times at least.

    Returns:
        The median seconds of a batch of each size.
    """
    times: dict[int, list[float]] = {size: [] for size in engine.profile.exec_batch_sizes}
    operation = engine.network.card.operations[0]
    card = engine.network.card
    rows = {size: make_probe_rows(card, operation, Addresses.of_range(0, 0, size)) for size in times}
    began, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - began < seconds:
        for size, spent in times.items():
            start = time.perf_counter()
            engine.network.run(operation, rows[size])
            spent.append(time.perf_counter() - start)
        rounds += 1
    return {size: statistics.median(spent) for size, spent in times.items()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
