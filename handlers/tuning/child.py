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

import numpy as np

from fount.address import Addresses, Stream
from handlers.execution.pixels import uint8_to_floats
from handlers.execution.rows import ImageRows, Rows, SampleRows
from handlers.loading.load import Engine, load_model
from handlers.models import load_family
from handlers.worker.items import made_up_manipulations

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
    rows = {size: _rows(engine, size) for size in times}
    began, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - began < seconds:
        for size, spent in times.items():
            start = time.perf_counter()
            engine.network.run(operation, rows[size])
            spent.append(time.perf_counter() - start)
        rounds += 1
    return {size: statistics.median(spent) for size, spent in times.items()}


def _rows(engine: Engine, size: int) -> Rows:
    card = engine.network.card
    addresses = Addresses.of_range(0, 0, size)
    if "SAMPLE" in card.operations:
        labels = np.arange(size, dtype=np.int64) % len(card.classes) if card.classes else None
        return SampleRows(addresses=addresses, labels=labels)
    shape = (card.sample.height, card.sample.width, card.sample.channels)
    if "TRANSFORM" in card.operations:
        return made_up_manipulations(addresses, shape)
    levels = (addresses.uniforms(Stream.LATENT, int(np.prod(shape))) * 256).astype(np.uint8)
    # (n, H W C) -> (n, H, W, C)
    return ImageRows(images=uint8_to_floats(levels.reshape(size, *shape), card.sample.value_range))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
