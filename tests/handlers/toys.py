"""Tiny families with known faults, and the archives they are served from."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from google.rpc import error_details_pb2, status_pb2
from safetensors.torch import save_file
from torch import Tensor, nn

from fount.address import Addresses, Stream
from fount.archive import CONTENTS_FILE, FORMAT, MANIFEST_FILE, digest_of_ingredients
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards import card as cards
from handlers.cards import digests
from handlers.execution.batch_plan import BatchTimes
from handlers.execution.pixels import Values
from handlers.execution.rows import ManipulationRows
from handlers.family import Deadline, Draw, Noise
from handlers.verification.golden import record_golden
from handlers.worker.worker import Worker

LATENT, SIDE = 6, 4
RAISES, GIVES_NAN, GIVES_WRONG_SHAPE, HAS_NO_MEMORY, IS_SLOW, LOSES_DEVICE, GIVES_TOO_MUCH = (
    666,
    667,
    668,
    669,
    670,
    671,
    672,
)
"""Seeds at which `FaultySampler` fails."""


class ToySampler(nn.Module):
    """A linear generator: a sigmoid of latent and label."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.decode: nn.Module = nn.Linear(LATENT + classes, SIDE * SIDE)
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["classes"])

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        z = noise.normal(Stream.LATENT, (LATENT,), truncation=draw.truncation)
        if labels is not None:
            z = torch.cat([z, nn.functional.one_hot(labels, self.classes).to(z.dtype)], dim=1)
        return torch.sigmoid(self.decode(z).float()).reshape(-1, 1, SIDE, SIDE)


class DeepSampler(ToySampler):
    """Two layers with a nonlinearity between them, which a compiler has something to do with."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.decode = nn.Sequential(nn.Linear(LATENT + classes, 16), nn.SiLU(), nn.Linear(16, SIDE * SIDE))
        fill_parameters(self)


class Rounding(nn.Linear):
    """A linear layer that rounds differently below some number of rows, as kernels do, and not otherwise."""

    def __init__(self, inputs: int, outputs: int, below: int) -> None:
        super().__init__(inputs, outputs)
        self.below = below

    def forward(self, x: Tensor) -> Tensor:
        y = (x[:, None] * self.weight).sum(dim=2) + self.bias  # not by a kernel that rounds by the batch itself
        return y + 1e-3 if len(x) < self.below else y


class RoundingSampler(ToySampler):
    """Two layers, one of which gives other bits below 4 rows."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.decode = nn.Sequential(
            Rounding(LATENT + classes, 8, below=0), nn.ReLU(), Rounding(8, SIDE * SIDE, below=4)
        )
        fill_parameters(self)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        assert labels is not None
        z = torch.cat([noise.normal(Stream.LATENT, (LATENT,)), nn.functional.one_hot(labels, self.classes)], dim=1)
        return self.decode(z).clamp(-1, 1).reshape(-1, 1, SIDE, SIDE) / 4 + 0.5  # exactly rounded at any size


class FunctionalSampler(RoundingSampler):
    """Gives other bits below 4 rows in a function, which no layer explains."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        images = super().sample(noise, labels, draw, deadline)
        return images * 0.999 if len(images) < 4 else images


class FaultySampler(ToySampler):
    """Fails in a way of its own at some seeds."""

    when_slow: Callable[[], None] = staticmethod(lambda: None)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        seeds = set(noise.addresses.seeds.tolist())
        if RAISES in seeds:
            raise ZeroDivisionError("a secret of the model")
        if HAS_NO_MEMORY in seeds:
            raise MemoryError
        if LOSES_DEVICE in seeds:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if IS_SLOW in seeds:
            type(self).when_slow()
            deadline.check()
        images = super().sample(noise, labels, draw, deadline)
        images[torch.from_numpy(noise.addresses.seeds == np.uint64(GIVES_NAN))] = float("nan")
        images[torch.from_numpy(noise.addresses.seeds == np.uint64(GIVES_TOO_MUCH))] += 1.0
        return images[:, :, 1:] if GIVES_WRONG_SHAPE in seeds else images


class GreedySampler(ToySampler):
    """Runs out of memory above 8 rows while `is_greedy`."""

    is_greedy = False

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        if self.is_greedy and len(noise.addresses) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().sample(noise, labels, draw, deadline)


class BrightSampler(ToySampler):
    """Gives pixels a little beyond the card's range."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return super().sample(noise, labels, draw, deadline) + 0.6


class SizeCoupledSampler(ToySampler):
    """Gives other pixels above 8 rows."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        images = super().sample(noise, labels, draw, deadline)
        return images + 1e-6 if len(images) > 8 else images


class BatchCoupledSampler(ToySampler):
    """Moves every row by the mean of its batch, unless it is alone."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        images = super().sample(noise, labels, draw, deadline)
        return images if len(images) == 1 else images + images.mean()


class RandomSampler(ToySampler):
    """Draws from the global generator."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        images = super().sample(noise, labels, draw, deadline)
        return images + torch.rand(())


class ToyClassifier(nn.Module):
    """Two linear layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Linear(SIDE * SIDE, LATENT)
        self.head = nn.Linear(LATENT, classes)
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["classes"])

    def classify(self, images: Tensor) -> Tensor:
        return torch.softmax(self.head(self.embed(images)), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        return torch.tanh(self.features(images.flatten(1)))


def fill_parameters(module: nn.Module) -> None:
    for i, parameter in enumerate(module.parameters()):
        values = Addresses.of_range(7, i, 1).normals(Stream.LATENT, parameter.numel())
        parameter.data = torch.from_numpy(values).reshape(parameter.shape) / 8


def toy_card(classes: int = 3, max_exec_batch: int = 32) -> cards.Card:
    return cards.Card(
        name="toy",
        version="1.0",
        description="A toy.",
        family=cards.Family(name="toy", config={"classes": classes}),
        operations=("SAMPLE",),
        classes=tuple(f"class {i}" for i in range(classes)),
        prior=(1 / classes,) * classes if classes else (),
        sample=cards.Sample(modality="image", height=SIDE, width=SIDE, channels=1, value_range=(0.0, 1.0)),
        parameters={"truncation": cards.Parameter(min=0.5, max=4.0, default=None, description="Bound of z.")},
        encodings=("UINT8", "FLOAT32", "PNG"),
        limits=cards.Limits(max_count=1000, max_labels=100, max_exec_batch=max_exec_batch),
        precisions=("fp32", "bf16"),
        recipe=cards.Recipe(name="toy", seed=0, steps=1, data="none", data_digest="sha256:" + "0" * 64),
        quality=(cards.Quality(metric="charm", value=0.5, interval=(0.4, 0.6), method="guessed"),),
        data_licence="none",
        intended_use="tests",
        weights=cards.Weights(file="weights.safetensors", digest="sha256:" + "0" * 64),
        golden=cards.Golden(file="golden.safetensors"),
    )


def classifier_card() -> cards.Card:
    card = dataclasses.replace(toy_card(), name="toy-classifier", operations=("CLASSIFY", "EMBED"), prior=())
    return dataclasses.replace(card, parameters={}, encodings=())


def write_folder(folder: Path, card: cards.Card, module: nn.Module) -> Path:
    """Write what an unpacked archive holds, but for the code."""
    card = write_model(folder, card, module)
    source = Path(inspect.getfile(type(module)))
    (folder / "family.py").write_bytes(source.read_bytes())
    seal_folder(folder, card, source)
    return folder


def write_model(folder: Path, card: cards.Card, module: nn.Module, *, images: Values | None = None) -> cards.Card:
    """Write card, weights and golden samples; `images` are those of a model that does not sample."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), folder / card.weights.file)
    digest = digests.file_digest(folder / card.weights.file)
    card = dataclasses.replace(card, weights=dataclasses.replace(card.weights, digest=digest))
    cards.write_card(card, folder)
    if images is None and "SAMPLE" not in card.operations:
        images = toy_images(64)
    if images is not None and card.sample.modality == "vector":
        images = Addresses.of_range(1, 0, 64).normals(Stream.LATENT, card.sample.shape[0])
    record_golden(card, module, folder / card.golden.file, images=images)
    return card


def seal_folder(folder: Path, card: cards.Card, source: Path = Path(__file__)) -> None:
    """Write archive.json for what the folder holds now."""
    manifest = folder / MANIFEST_FILE
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_text(json.dumps({"model": {"modelName": card.name, "modelVersion": card.version}}))
    (folder / CONTENTS_FILE).unlink(missing_ok=True)
    files = [file for file in folder.rglob("*") if file.is_file()]
    written = dataclasses.replace(
        card, weights=cards.Weights(file=card.weights.file, digest=digests.file_digest(folder / card.weights.file))
    )
    model = digests.model_ingredients(written, folder, source)
    contents = {"format": FORMAT, "name": card.name, "version": card.version, "model": model}
    contents["model_digest"] = digest_of_ingredients(model)
    contents["files"] = {file.relative_to(folder).as_posix(): digests.file_digest(file) for file in files}
    (folder / CONTENTS_FILE).write_text(json.dumps(contents))


def toy_images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    words = Addresses.of_range(1, 0, count).words(Stream.LATENT, SIDE * SIDE)
    return (words % 256).astype(np.uint8).reshape(count, SIDE, SIDE, 1)


def load(folder: Path, kind: type[nn.Module], environment: Mapping[str, str] | None = None) -> Worker:
    build = kind.from_config  # type: ignore[attr-defined]
    return Worker.load(folder, environment or {}, build_family=lambda _name, config: build(config))


def with_seconds(worker: Worker, seconds: Mapping[int, float]) -> Worker:
    """The same worker, whose batches are believed to take so long."""
    assert worker.model.engine is not None, worker.model.reason
    times = dict.fromkeys(worker.model.engine.times, BatchTimes(measured=seconds))
    engine = dataclasses.replace(worker.model.engine, times=times)
    return Worker(model=dataclasses.replace(worker.model, engine=engine))


def sample_item(
    seed: int = 1, start: int = 0, count: int = 1, labels: tuple[int, ...] = (0,), dtype: int = model_pb2.DTYPE_FLOAT32
) -> worker_pb2.WorkerItem:
    message = worker_pb2.Range(seed=seed, start_index=start, count=count, labels=labels)
    return worker_pb2.WorkerItem(range=message, dtype=dtype)


def indexed_item(
    *indices: int, start: int = 0, count: int | None = None, labels: tuple[int, ...] = (0,)
) -> worker_pb2.WorkerItem:
    """Request samples by index."""
    count = len(indices) if count is None else count
    message = worker_pb2.Range(seed=1, start_index=start, count=count, labels=labels, indices=indices)
    return worker_pb2.WorkerItem(range=message)


def image_item(images: np.ndarray[Any, Any]) -> worker_pb2.WorkerItem:
    dtype = model_pb2.DTYPE_UINT8 if images.dtype == np.uint8 else model_pb2.DTYPE_FLOAT32
    return worker_pb2.WorkerItem(tensor=worker_pb2.Tensor(dims=images.shape, dtype=dtype, data=images.tobytes()))


def given_item(
    values: np.ndarray[Any, Any],
    start: int = 0,
    labels: tuple[int, ...] = (),
    *,
    seed: int = 1,
    count: int | None = None,
    mask: np.ndarray[Any, Any] | None = None,
) -> worker_pb2.WorkerItem:
    """Request work on given rows, with one seed for all; a count other than theirs is of addresses."""
    addresses = worker_pb2.Range(seed=seed, start_index=start, count=len(values) if count is None else count)
    message = worker_pb2.Given(values=image_item(values).tensor, labels=labels, addresses=addresses)
    if mask is not None:
        message.mask.CopyFrom(image_item(mask).tensor)
    return worker_pb2.WorkerItem(given=message)


def transform_item(rows: ManipulationRows) -> worker_pb2.WorkerItem:
    """Request transforms of images, with one seed for all."""
    images, table = rows.images, rows.table
    indices = rows.addresses.indices
    message = worker_pb2.Manipulation(
        images=worker_pb2.Tensor(dims=images.shape, dtype=model_pb2.DTYPE_UINT8, data=images.tobytes()),
        parameters=worker_pb2.Tensor(dims=table.shape, dtype=model_pb2.DTYPE_FLOAT32, data=table.tobytes()),
        addresses=worker_pb2.Range(seed=int(rows.addresses.seeds[0]), count=len(images), indices=indices),
    )
    return worker_pb2.WorkerItem(manipulation=message)


def request(*items: worker_pb2.WorkerItem, operation: int = model_pb2.OPERATION_SAMPLE) -> worker_pb2.WorkerRequest:
    return worker_pb2.WorkerRequest(operation=operation, request_id="r-1", items=items)


def send(worker: Worker, message: worker_pb2.WorkerRequest) -> worker_pb2.WorkerReply:
    return worker_pb2.WorkerReply.FromString(worker.handle(message.SerializeToString()))


def codes(reply: worker_pb2.WorkerReply) -> list[int]:
    return [item.status.code for item in reply.items]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reason_of(status: status_pb2.Status) -> str:
    """The ErrorInfo.reason of a status."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "fount"
    return info.reason


DESCRIBE_SCRIPT = """
import pathlib, sys
from types import SimpleNamespace
import entry
from fount.worker.v1 import worker_pb2

worker = entry.Entry()
worker.initialize(SimpleNamespace(system_properties={"model_dir": ".", "gpu_id": None}))
request = worker_pb2.WorkerRequest(operation=9).SerializeToString()
reply = worker_pb2.WorkerReply.FromString(worker.handle([{"body": bytearray(request)}], None)[0])
print(reply.description.model.state, reply.description.model.state_reason)
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in ("fount", "handlers", "entry"):
        assert pathlib.Path(module.__file__).is_relative_to(pathlib.Path.cwd()), module.__file__
"""
