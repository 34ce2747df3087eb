"""Custom models, as their authors would write them: a card, a file or a program, and weights."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fount.address import Addresses, Stream
from fount.v1 import model_pb2
from handlers.cards import card as cards
from handlers.cards import digests
from handlers.loading.build import build_module
from handlers.loading.custom_source import build_custom_class
from handlers.packaging.pack import pack
from handlers.verification.golden import record_golden
from handlers.worker.worker import Worker
from tests.handlers.toys import request, sample_item, seal_folder, send

LATENT = 6

CONDITIONAL = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1, classes=3):
        super().__init__()
        self.shape = (channels, height, width)
        self.embed = nn.Embedding(classes, 6)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU(),
                                 nn.Linear(16, height * width * channels))

    def sample(self, z, label):
        return torch.tanh(self.net(z + self.embed(label))).unflatten(1, self.shape)
"""

UNCONDITIONAL = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1):
        super().__init__()
        self.shape = (channels, height, width)
        self.net = nn.Linear(6, height * width * channels)

    def forward(self, input):
        return torch.tanh(self.net(input)).unflatten(1, self.shape)
"""


def custom_card(size: tuple[int, int, int] = (4, 4, 1), classes: int = 3, **changes: Any) -> cards.Card:
    """A card for `Generator` of generator.py; size is height, width, channels."""
    config = dict(zip(("height", "width", "channels"), size, strict=True))
    card = cards.Card(
        name="own",
        version="1.0",
        description="A generator of the user's.",
        family=cards.Family(name="module", config=config, source="generator.py", class_name="Generator"),
        operations=("SAMPLE",),
        classes=tuple(f"class {i}" for i in range(classes)),
        prior=(1 / classes,) * classes if classes else (),
        latent=cards.Latent(shape=(LATENT,)),
        sample=cards.Sample(modality="image", height=size[0], width=size[1], channels=size[2], value_range=(-1.0, 1.0)),
        parameters={},
        encodings=("UINT8", "FLOAT32"),
        limits=cards.Limits(max_count=1000, max_labels=100, max_exec_batch=16),
        precisions=("fp32",),
        data_licence="none",
        intended_use="tests",
        weights=cards.Weights(file="weights.safetensors"),
    )
    return dataclasses.replace(card, **changes)


def program_card(kind: str, file: str, classes: int = 3) -> cards.Card:
    return custom_card(classes=classes, family=cards.Family(name=kind), weights=cards.Weights(file=file))


def write_custom(folder: Path, source: str, card: cards.Card, *, weights: bool = True) -> nn.Module | None:
    """Write a folder as an author would; gives the author's module, with weights that training could have left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generator.py").write_text(source)
    cards.write_card(card, folder)
    if not weights:
        save_file({"net.weight": torch.zeros(1)}, folder / card.weights.file)
        return None
    module = build_custom_class(folder / "generator.py", "Generator", card.family.config)
    with torch.no_grad():
        for i, tensor in enumerate(module.state_dict().values()):
            if tensor.is_floating_point():
                tensor.copy_(torch.linspace(0.1, 1.5, max(1, tensor.numel())).sin().reshape(tensor.shape) / (i % 3 + 1))
    save_file(module.state_dict(), folder / card.weights.file)
    return module.eval()


def reason_of(folder: Path) -> str:
    """Load a folder as a worker does, without golden samples; return why it cannot serve, or ""."""
    card = cards.load_card(folder)
    source = digests.source_of(card, folder)
    if source.parent != folder:
        shutil.copy(source, folder / "program.py")  # as an archive has it, elsewhere
    seal_folder(folder, card, source)
    worker = Worker.load(folder, {})
    result = send(worker, request(operation=model_pb2.OPERATION_DESCRIBE)).description.model
    assert result.state_reason == worker.model.reason
    return worker.model.reason


def serve(folder: Path, place: Path) -> Worker:
    """Record golden samples, pack, unpack, and load what was unpacked."""
    card = cards.load_card(folder)
    record_golden(card, build_module(card, folder), folder / card.golden.file)
    pack(folder, place)
    with zipfile.ZipFile(place / f"{card.name}-{card.version}.mar") as archive:
        archive.extractall(place / "unpacked")
    worker = Worker.load(place / "unpacked", {})
    assert worker.model.reason == ""
    return worker


def draw(worker: Worker, *, start: int = 0, count: int = 1, labels: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
    """Draw float images (count, H, W, C) of seed 1."""
    tensor = send(worker, request(sample_item(start=start, count=count, labels=labels))).items[0].value
    return np.frombuffer(tensor.data, np.float32).reshape(tuple(tensor.dims))


class Trap:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def latents(count: int) -> torch.Tensor:
    return torch.from_numpy(Addresses.of_range(1, 0, count).normals(Stream.LATENT, LATENT))


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net = nn.Embedding(3, 6), nn.Linear(6, 16)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.net(z + self.embed(label))).reshape(-1, 1, 4, 4)


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    return torch.ones(rows, 6), torch.zeros(rows, dtype=torch.int64)


def save_exported(file: Path, module: nn.Module, rows: object = None) -> None:
    free = torch.export.Dim("batch") if rows is None else rows
    program = torch.export.export(module.eval(), inputs(2), dynamic_shapes=({0: free}, {0: free}) if free else None)
    torch.export.save(program, file)


def rewrite(file: Path, old: str, new: str) -> Path:
    """Replace some text in all code of a program, and in the graph of an exported one."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(
                name, data.replace(old.encode(), new.encode()) if name.endswith((".py", ".json")) else data
            )
    return file
