"""The limit: the model in one process, without a server.

`python -m benchmarks.limit FOLDER` loads an unpacked archive as a worker does, and does only what a worker must do for
each sample: noise by address, the network, rounding to uint8, in the batch size with the highest rate. The environment
says whether the network is eager, has its batch normalisation folded, or is compiled.
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.child import serve_commands, write_result
from fount.address import Addresses
from handlers.execution.network import Network
from handlers.execution.pixels import floats_to_uint8
from handlers.execution.rows import SampleRows, pad_rows
from handlers.worker.worker import Worker

__all__ = ["main"]

_SEED = 1


def _run_until(network: Network, size: int, end: float) -> dict[str, float]:
    """Draw batches until a time, and measure their rate and CPU-seconds."""
    classes = len(network.card.classes)
    labels = np.arange(size, dtype=np.int64) % classes if classes else None
    start, cpu_start = time.monotonic(), time.process_time()
    for batch in count(1):
        rows = SampleRows(addresses=Addresses.of_range(_SEED, batch * size, size), labels=labels)
        floats_to_uint8(network.run("SAMPLE", rows), network.card.sample.value_range).tobytes()
        if time.monotonic() >= end:
            break
    seconds = time.monotonic() - start
    return {"samples_per_s": batch * size / seconds, "cpu_s": time.process_time() - cpu_start, "samples": batch * size}


def _try_size(network: Network, size: int, seconds: float) -> tuple[float, float]:
    """Measure samples/s, and CPU-seconds of one batch."""
    _run_until(network, size, time.monotonic())  # the first batch of a size chooses kernels
    result = _run_until(network, size, time.monotonic() + seconds)
    return result["samples_per_s"], result["cpu_s"] * size / result["samples"]


def _draw(network: Network, size: int, draws: int) -> str:
    """Draw the first addresses of seed 1, each with the label of its index; bytes in hexadecimal."""
    images = []
    for index in range(draws):
        labels = np.full(1, index % len(network.card.classes), np.int64)
        rows = pad_rows(SampleRows(addresses=Addresses.of_range(_SEED, index, 1), labels=labels), size)
        images.append(floats_to_uint8(network.run("SAMPLE", rows)[:1], network.card.sample.value_range).tobytes())
    return b"".join(images).hex()


def _handle(network: Network, sizes: tuple[int, ...], command: dict[str, Any]) -> dict[str, Any]:
    """Handle `choose`: seconds for each size; `draw`: number of addresses; or `size`, `begin`, `end`: one window."""
    if "choose" in command:
        return {"sizes": [[size, *_try_size(network, size, command["choose"])] for size in sizes]}
    if "draw" in command:
        return {"images": _draw(network, sizes[0], command["draw"])}
    time.sleep(max(0.0, command["begin"] - time.monotonic()))
    return _run_until(network, command["size"], command["end"])


def main(folder: Path) -> None:
    """Load the archive as a worker does, then handle commands."""
    model = Worker.load(folder, gpu_id=0 if torch.cuda.is_available() else None).model  # as TorchServe assigns GPUs
    if model.engine is None or model.numerics is None:
        write_result({"error": model.reason})
        return
    network, sizes = model.engine.network, model.engine.profile.exec_batch_sizes
    ready = {"numerics": model.numerics.id, "sizes": list(sizes)}
    serve_commands(lambda command: _handle(network, sizes, command), ready)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
