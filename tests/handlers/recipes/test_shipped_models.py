"""The shipped models return the same bytes for an address, in requests and batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fount.address import Addresses
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card, load_card, write_card
from handlers.execution.probes import make_manipulations
from handlers.models import load_family, source_file
from handlers.worker.worker import Worker
from tests.handlers.toys import given_item, image_item, request, sample_item, seal_folder, send, transform_item

MODEL_STORE = Path(__file__).resolve().parents[3] / "model_store"
SHIPPED = sorted(card.parent.name for card in MODEL_STORE.glob("*/model.yaml"))
FAST = ("mnist-classifier", "mnist-pca", "mnist-vae")
"""The models of MNIST whose profiles are measured in a moment, and one with every operation of a latent space."""

LARGE = tuple(name for name in SHIPPED if name.startswith(("mnist-", "shapes-")) and name not in FAST)
MANY_STEPS = tuple(name for name in SHIPPED if "draw_steps:" in (MODEL_STORE / name / "model.yaml").read_text())
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE + MANY_STEPS else name for name in SHIPPED]
SIZES = (1, 7, 8, 9, 33, 64, 65, 113)
"""Rows of requests in one call; together 300, so that batches of 256 and less are run."""

FEW_SIZES = (1, 7, 2, 3, 8)
"""The same of models of many steps, whose profiles prove the equality of their steps in larger batches."""

_FEW_STEPS = 3  # of those whose steps a request may set

Items = list[worker_pb2.WorkerItem]
HERE = pytest.param("cpu", id="cpu")
GPU = pytest.param(
    "cuda", id="cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")],
)  # fmt: skip


@pytest.fixture(scope="module", params=[HERE, GPU])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=NAMES)
def shipped(request: pytest.FixtureRequest, device: str, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker of an archive that holds a shipped model."""
    source, folder = MODEL_STORE / request.param, tmp_path_factory.mktemp(request.param)
    card = load_card(source)
    for name in (card.weights.file, card.golden.file):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "family.py").write_bytes(source_file(card.family.name).read_bytes())
    write_card(card, folder)
    seal_folder(folder, card, folder / "family.py")
    return Worker.load(folder, {}, gpu_id=0 if device == "cuda" else None, build_family=load_family)


def _items(worker: Worker, sizes: tuple[int, ...], operation: int) -> Items:
    """Create requests of some sizes for the rows 0 to 299."""
    card = _card(worker)
    parts = list(zip([0, *accumulate(sizes)][:-1], sizes, strict=True))
    labels = (min(3, len(card.classes) - 1),) if card.classes else ()
    if operation == model_pb2.OPERATION_TRANSFORM:
        rows = make_manipulations(Addresses.of_range(5, 0, sum(sizes)), (28, 28, 1))
        return [transform_item(rows.take(slice(at, at + size))) for at, size in parts]
    if operation == model_pb2.OPERATION_SAMPLE:
        return [sample_item(start=start, count=size, labels=labels) for start, size in parts]
    values = _values(card, sum(sizes), operation)
    if operation in (model_pb2.OPERATION_CLASSIFY, model_pb2.OPERATION_EMBED):
        return [image_item(values[start : start + size]) for start, size in parts]
    own = [i % len(card.classes) for i in range(sum(sizes))] if card.classes else []  # of each row
    return [given_item(values[at : at + size], at, tuple(own[at : at + size])) for at, size in parts]


def _values(card: Card, count: int, operation: int) -> np.ndarray[Any, Any]:
    """Make rows that an operation reads: latents, pictures or points."""
    random = np.random.default_rng(0)
    if operation == model_pb2.OPERATION_DECODE:
        return random.standard_normal((count, card.latent_dim or 0), np.float32)
    if card.sample.modality == "vector":
        return random.uniform(*card.sample.value_range, (count, *card.sample.shape)).astype(np.float32)
    shape = card.input_shape if operation == model_pb2.OPERATION_TRANSLATE else card.sample.shape
    return random.integers(0, 256, (count, *shape), np.uint8)


def _operations(worker: Worker) -> Iterator[int]:
    yield from (model_pb2.Operation.Value(f"OPERATION_{name}") for name in _card(worker).operations)


def _data(worker: Worker, items: Items, operation: int) -> bytes:
    message = request(*items, operation=operation)
    if "steps" in _card(worker).parameters:
        message.parameters.steps = _FEW_STEPS
    reply = send(worker, message)
    assert all(item.WhichOneof("outcome") == "value" and not item.row_errors for item in reply.items), reply
    return b"".join(item.value.data for item in reply.items)


def test_it_is_ready(shipped: Worker) -> None:
    assert shipped.model.engine, shipped.model.reason


def test_requests_of_mixed_sizes_have_the_floats_of_one_request(shipped: Worker) -> None:
    sizes = _sizes(shipped)
    for operation in _operations(shipped):
        together = _data(shipped, _items(shipped, (sum(sizes),), operation), operation)
        assert _data(shipped, _items(shipped, sizes, operation), operation) == together
        assert _data(shipped, _items(shipped, sizes[::-1], operation), operation) == together


def test_requests_of_single_rows_have_the_floats_of_one_request(shipped: Worker) -> None:
    count = 40 if _sizes(shipped) is SIZES else 8
    for operation in _operations(shipped):
        together = _data(shipped, _items(shipped, (count,), operation), operation)
        alone = [_data(shipped, [item], operation) for item in _items(shipped, (1,) * count, operation)]
        assert b"".join(alone) == together


def test_other_requests_before_a_request_change_none_of_its_floats(shipped: Worker) -> None:
    for operation in _operations(shipped):
        items = _items(shipped, _sizes(shipped), operation)
        alone = _data(shipped, items[-1:], operation)
        for others in (1, 2, 4):
            assert _data(shipped, [*items[:others], items[-1]], operation).endswith(alone)


def _sizes(worker: Worker) -> tuple[int, ...]:
    return SIZES if _card(worker).draw_steps == 1 else FEW_SIZES


def _card(worker: Worker) -> Card:
    assert worker.model.card is not None, worker.model.reason
    return worker.model.card
