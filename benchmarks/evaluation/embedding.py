"""EMBED through the whole stack compared with one process: rows/s of `mnist-classifier` on the same images.

The stack is `fount serve` and a client process with the requests of an evaluation's runner (`RemoteWorkers`, the
private ReadingService). The one process has the same network, loaded from the same archive, with as many threads as
the worker, in the fastest batch size. Digests of the features are compared first.

Started as `python -m benchmarks.evaluation.embedding local UNPACKED IMAGES` or `… remote SERVER IMAGES` it is one
of the two sides; `measure` starts both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import ROOT, Child, ChildError, serve_commands
from benchmarks.fount_servers import serve
from benchmarks.rows import Bound, Row

__all__ = ["EXPECTED", "measure"]

EXPECTED = "0.8 of whole arrays, since gateway and Java have a core of their own; 0.6 of one array of 500 after another"
"""Ratios expected before the first run."""

_MODEL = "mnist-classifier"
_ROWS, _QUICK_ROWS = 10_000, 2_000
_CHUNK = 500  # samples of one step of an evaluation
_MUST = 0.7


def measure(
    folder: Path, rounds: int, *, data: Path | None, quick: bool, threads: int = 1, log: Callable[[str], None] = print
) -> tuple[list[Row], dict[str, Any]]:
    """Measure in interleaved rounds.

    Args:
        folder: for archives, images and logs; emptied.
        rounds: how many.
        data: folder of MNIST; None: random pixels.
        quick: fewer rows.
        threads: torch's, on both sides.
        log: called with progress messages.

    Returns:
        The rows of the table, and the rows/s of every round.

    Raises:
        ChildError: the two sides give different features, or one of them failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = folder / "images.npy"
    np.save(images, _images(data, _QUICK_ROWS if quick else _ROWS))
    seen: list[dict[str, float]] = []
    with _sides(folder, images, threads) as (local, remote):
        _check_same(local, remote)
        for number in range(rounds):
            one = local.call({"do": "embed"})["rows_per_s"]
            seen.append({
                "one process": one,
                "whole": remote.call({"do": "embed"})["rows_per_s"],
                "chunks": remote.call({"do": "embed", "chunk": _CHUNK})["rows_per_s"],
            })  # fmt: skip
            values = ", ".join(f"{name} {value:.0f}" for name, value in seen[-1].items())
            log(f"  round {number + 1} of {rounds}: rows/s: {values}")
    rows = [
        _row("EMBED of an array", seen, "whole", Bound(must=_MUST)),
        _row(f"EMBED, {_CHUNK} images after another", seen, "chunks", Bound()),
    ]
    return rows, {"expected": EXPECTED, "threads": threads, "rounds": seen}


def _row(title: str, seen: list[dict[str, float]], side: str, bound: Bound) -> Row:
    ratios = [each[side] / each["one process"] for each in seen]
    ours, theirs = (statistics.median(each[name] for each in seen) for name in (side, "one process"))
    return Row(
        workload=title, precision="fp32", value=f"{ours:.0f} rows/s", reference=f"{theirs:.0f} rows/s in one process",
        ratio=statistics.median(ratios), spread=(min(ratios), max(ratios)), bound=bound,
    )  # fmt: skip


def _images(data: Path | None, count: int) -> NDArray[np.uint8]:
    """Read training rows of MNIST, or draw random pixels without it."""
    if data is None:
        return np.random.Generator(np.random.Philox(0)).integers(0, 256, (count, 28, 28, 1), np.uint8)
    from handlers.recipes.data.load import load_data

    rows = load_data("mnist", data).train.images[:count].permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    scaled: NDArray[np.uint8] = (rows * 255).round().numpy().astype(np.uint8)
    return scaled


@contextmanager
def _sides(folder: Path, images: Path, threads: int) -> Iterator[tuple[Child, Child]]:
    """Pack, serve, and start both processes; they end with the block."""
    store = folder / "store"
    shutil.copytree(ROOT / "model_store" / _MODEL, store / _MODEL)
    with ExitStack() as stack:
        server = stack.enter_context(serve(store, {}, folder, "--threads", str(threads)))
        unpacked = _unpack(folder)
        quiet = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
        own = {"FOUNT_WORKER_STATE": str(folder / "local-state"), "FOUNT_WORKER_THREADS": str(threads)}
        module = "benchmarks.evaluation.embedding"
        local = stack.enter_context(Child(module, "local", str(unpacked), str(images), environment=quiet | own))
        remote = stack.enter_context(Child(module, "remote", server, str(images), environment=quiet))
        for child in (local, remote):
            child.receive()
        yield local, remote


def _unpack(folder: Path) -> Path:
    from handlers.packaging.pack import pack

    archive = folder / "archives" / f"{_MODEL}-1.0.mar"
    pack(folder / "store" / _MODEL, archive.parent)
    with zipfile.ZipFile(next(archive.parent.glob("*.mar"))) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def _check_same(local: Child, remote: Child) -> None:
    """Compare the bytes of both sides before anything is measured; this also warms them up."""
    ours, theirs = (each.call({"do": "embed"})["digest"] for each in (remote, local))
    if ours != theirs:
        raise ChildError("the service and the one process gave different features; nothing was measured")


class _Local:
    """The network in this process."""

    def __init__(self, unpacked: Path) -> None:
        from handlers.worker.worker import Worker

        engine = Worker.load(unpacked).model.engine
        assert engine is not None, "the classifier did not load"
        times = engine.profile.seconds_per_batch
        self._engine, self._size = engine, min(engine.profile.exec_batch_sizes, key=lambda each: times[each] / each)

    def embed(self, images: NDArray[np.uint8], chunk: int) -> NDArray[np.float32]:
        from handlers.execution.pixels import uint8_to_floats
        from handlers.execution.rows import ImageRows, pad_rows

        network, size, parts = self._engine.network, self._size, []
        for start in range(0, len(images), size):
            floats = uint8_to_floats(images[start : start + size], network.card.sample.value_range)
            parts.append(network.run("EMBED", pad_rows(ImageRows(images=floats), size))[: len(floats)])
        return np.concatenate(parts).astype(np.float32)


class _Remote:
    """The client of an evaluation's runner."""

    def __init__(self, server: str) -> None:
        from fount import Client
        from service.evaluation.specification import PinnedModel
        from service.rpc.runner_client import RemoteWorkers

        with Client(server) as client:
            found = client.model(_MODEL)
        self._model = PinnedModel(
            name=found.name, version=found.version, digest=found.digest, numerics=found.numerics[0]
        )
        self._workers, self._runner = RemoteWorkers(server), asyncio.Runner()

    def embed(self, images: NDArray[np.uint8], chunk: int) -> NDArray[np.float32]:
        async def request() -> NDArray[np.float32]:
            step = chunk or len(images)
            parts = [await self._workers.embed(self._model, images[k : k + step]) for k in range(0, len(images), step)]
            return np.concatenate(parts)

        return self._runner.run(request())


def main(side: str, where: str, images_file: Path) -> None:
    """Run one side: embed all images for each command, and measure the rate."""
    images = np.load(images_file)
    embedder = _Local(Path(where)) if side == "local" else _Remote(where)

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        start = time.monotonic()
        features = embedder.embed(images, command.get("chunk", 0))
        seconds = time.monotonic() - start
        return {"rows_per_s": len(images) / seconds, "digest": hashlib.sha256(features.tobytes()).hexdigest()}

    serve_commands(handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
