"""A family that builds on another one: both are packed and in the digest, and a worker serves it in steps."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards import card as cards
from handlers.cards.digests import file_digest, model_digest, model_ingredients
from handlers.checks.registry import run_checks
from handlers.checks.subject import Subject
from handlers.models.image_diffusion import ImageDiffusion
from handlers.packaging.imports import foreign_imports
from handlers.packaging.pack import pack
from handlers.settings import Settings
from handlers.worker.worker import Worker
from tests.handlers.toys import given_item, request, send
from tests.unit.repository.test_repository import ROOT

CONFIG: dict[str, Any] = {
    "height": 4, "width": 4, "channels": 1, "classes": 0, "features": [8, 8],
    "given": {"height": 2, "width": 2, "channels": 1},
}  # fmt: skip
ARCHIVE = "larger-1.0.mar"
STEPS = cards.Parameter(min=1.0, max=256.0, default=4.0, description="Steps of a draw.")
CARD = cards.Card(
    name="larger", version="1.0", description="Larger pictures.", intended_use="tests", data_licence="none",
    family=cards.Family(name="image-diffusion", config=CONFIG), operations=("TRANSLATE",),
    sample=cards.Sample(modality="image", height=4, width=4, channels=1, value_range=(-1.0, 1.0)),
    input=cards.Input(height=2, width=2, channels=1), parameters={"steps": STEPS}, draw_steps=4,
    encodings=("UINT8", "FLOAT32"), precisions=("fp32",), weights=cards.Weights(file="weights.safetensors"),
    limits=cards.Limits(max_count=1000, max_labels=100, max_exec_batch=8),
)  # fmt: skip


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A model folder, and what checks that record golden samples found."""
    folder = tmp_path_factory.mktemp("store") / "larger"
    folder.mkdir()
    torch.manual_seed(0)
    untrained = ImageDiffusion.from_config(CONFIG).state_dict()
    state = {name: 0.1 * torch.randn(value.shape) for name, value in untrained.items()}
    save_file(state, folder / "weights.safetensors")
    cards.write_card(CARD, folder)
    subject = Subject(folder=folder, settings=Settings(), picture=folder / "samples.png")
    findings = {found.check: f"{found.state}: {found.seen}" for found in run_checks(subject)}
    return folder, findings


@pytest.fixture(scope="module")
def worker(checked: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker of the packed archive."""
    archives = tmp_path_factory.mktemp("archives")
    pack(checked[0], archives)
    unpacked = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(archives / ARCHIVE).extractall(unpacked)
    loaded = Worker.load(unpacked, {})
    assert loaded.model.engine is not None, loaded.model.reason
    return loaded


def test_it_passes_every_check(checked: tuple[Path, dict[str, str]]) -> None:
    wrong = {name: found for name, found in checked[1].items() if not found.startswith(("passed", "warned"))}
    assert wrong == {}


def test_both_files_are_packed_and_in_the_digest(checked: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, models = checked[0], ROOT / "handlers/models"
    ingredients = model_ingredients(cards.load_card(folder), folder)
    assert ingredients["source"] == file_digest(models / "image_diffusion.py")
    assert ingredients["base"] == file_digest(models / "diffusion.py")
    assert pack(folder, tmp_path).model_digest == model_digest(cards.load_card(folder), folder)
    names = zipfile.ZipFile(tmp_path / ARCHIVE).namelist()
    assert {"handlers/models/image_diffusion.py", "handlers/models/diffusion.py"} <= set(names)


def test_a_family_may_import_no_other_than_its_base() -> None:
    models = ROOT / "handlers/models"
    assert foreign_imports(ROOT, models / "image_diffusion.py") == []
    assert foreign_imports(ROOT, models / "image_regressor.py") == []


@pytest.mark.parametrize("limit", [1, 3])
def test_a_cut_answer_equals_an_uncut_one(worker: Worker, limit: int) -> None:
    def call(item: worker_pb2.WorkerItem, step_limit: int) -> worker_pb2.WorkerOutcome:
        message = request(item, operation=model_pb2.OPERATION_TRANSLATE)
        message.step_limit = step_limit
        return send(worker, message).items[0]

    item = given_item(np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2, 1), start=40)
    whole, outcome = call(item, 0), call(item, limit)
    while outcome.WhichOneof("outcome") == "carry":
        outcome = call(worker_pb2.WorkerItem(range=item.given.addresses, carry=outcome.carry), limit)
    assert outcome.value.data == whole.value.data
    assert list(whole.value.dims) == [2, 4, 4, 1]
