"""The testbed of augmentation: a server, a client process, one process that computes the same rows, and plans."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import ROOT, Child, ChildError
from benchmarks.fount_servers import serve
from benchmarks.plan import Layout, worker_options
from fount import Client

__all__ = ["AugmentationTestbed", "open_testbed"]

_MODELS = ("mnist-cvae", "mnist-classifier", "transforms")
_TRAIN_ROWS, _TEST_ROWS = 10_000, 2_000
_SEED = 2**40 + 1  # differs from the seeds of plans


@dataclass(frozen=True, kw_only=True)
class AugmentationTestbed:
    """The running processes.

    Attributes:
        folder: for plans and exports.
        server: HOST:PORT.
        client: of this process, for planning.
        puller: a client process that pulls rows.
        local: a process that computes the same rows without a server.
    """

    folder: Path
    server: str
    client: Client
    puller: Child
    local: Child

    def plan(self, name: str, spec: Mapping[str, Any]) -> Path:
        """Plan, and store the plan in a file."""
        file = self.folder / f"{name}.plan"
        file.write_bytes(self.client.plan({"dataset": "bench", "seed": 1, **spec}).message.SerializeToString())
        return file


@contextmanager
def open_testbed(folder: Path, layout: Layout) -> Iterator[AugmentationTestbed]:
    """Pack, serve with a layout of workers, draw the data set and start the processes; they end with the block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = folder / "store"
    for name in _MODELS:
        shutil.copytree(ROOT / "model_store" / name, store / name)
    _unpack(folder)
    with ExitStack() as stack:
        data = folder / "bench.npz"
        with serve(store, {}, folder) as server, Client(server) as client:
            _draw_dataset(client, data)
        options = ("--data-sets", str(_configure(folder, data)), *worker_options(layout, "fp32"))
        server = stack.enter_context(serve(store, {}, folder, *options))
        client = stack.enter_context(Client(server, timeout_s=None))
        puller = stack.enter_context(Child("benchmarks.augmentation.puller", server))
        quiet = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
        environment = quiet | {"FOUNT_WORKER_STATE": str(folder / "local-state")}
        arguments = (str(folder / "unpacked"), str(data))
        local = stack.enter_context(Child("benchmarks.augmentation.local", *arguments, environment=environment))
        for child in (puller, local):
            child.receive()
        yield AugmentationTestbed(folder=folder, server=server, client=client, puller=puller, local=local)


def _unpack(folder: Path) -> None:
    command = [sys.executable, "-m", "fount", "pack", *_MODELS, "--model-store", str(folder / "store"),
               "--out", str(folder / "archives")]  # fmt: skip
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        raise ChildError("packing failed; its message is above")
    for archive in (folder / "archives").glob("*.mar"):
        name = next(each for each in sorted(_MODELS, key=len, reverse=True) if archive.name.startswith(each))
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder / "unpacked" / name)


def _draw_dataset(client: Client, file: Path) -> None:
    """Draw the data set from the generator, so that nothing is downloaded."""
    count = _TRAIN_ROWS + _TEST_ROWS
    drawn = client.sample("mnist-cvae", labels=np.arange(count) % 10, seed=_SEED)
    images, labels = np.asarray(drawn), np.arange(count) % 10
    np.savez(
        file, x_train=images[:_TRAIN_ROWS], y_train=labels[:_TRAIN_ROWS], x_test=images[_TRAIN_ROWS:],
        y_test=labels[_TRAIN_ROWS:],
    )  # fmt: skip


def _configure(folder: Path, data: Path) -> Path:
    file = folder / "sets.yaml"
    digits = ", ".join(f"'{digit}'" for digit in range(10))
    file.write_text(f"bench: {{path: {data}, classifier: mnist-classifier, classes: [{digits}], policy: "
                    "[{rotate: [0, 15]}, {shear: [0, 10], probability: 0.5}, {zoom: [0.9, 1.1]}, {shift: [0, 0.07]}, "
                    "{brightness: [-0.1, 0.1], probability: 0.5}, {contrast: [0.8, 1.2], probability: 0.5}, "
                    "{noise: [0, 0.05], probability: 0.25}]}\n")  # fmt: skip
    return file
