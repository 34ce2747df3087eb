"""Workers of toy families, loaded once."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from handlers.cards.card import Family
from handlers.models.classifier import ConvClassifier
from handlers.worker.worker import Worker
from tests.handlers.given_toys import (
    ToyAutoencoder,
    ToyPainter,
    ToyPoints,
    autoencoder_card,
    painter_card,
    points_card,
    serve,
)
from tests.handlers.stepping_toys import SteppedToy, write_stepped_folder
from tests.handlers.toys import (
    FaultySampler,
    ToyClassifier,
    ToySampler,
    classifier_card,
    load,
    toy_card,
    write_folder,
    write_model,
)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("toy"), toy_card(), ToySampler(3))


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A conditional sampler of three classes that fails at some seeds."""
    folder = write_folder(tmp_path_factory.mktemp("faulty"), toy_card(), FaultySampler(3))
    return load(folder, FaultySampler)


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = write_folder(tmp_path_factory.mktemp("unconditional"), toy_card(classes=0), ToySampler(0))
    return load(folder, ToySampler)


@pytest.fixture(scope="session")
def stepped_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stepped_folder(tmp_path_factory.mktemp("stepped"), SteppedToy(3))


@pytest.fixture(scope="session")
def stepped(stepped_folder: Path) -> Worker:
    """A conditional many-step sampler of three classes, whose draws can be preempted."""
    return load(stepped_folder, SteppedToy)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = write_folder(tmp_path_factory.mktemp("classifier"), classifier_card(), ToyClassifier(3))
    return load(folder, ToyClassifier)


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Samples, encodes, decodes and scores pictures of three classes."""
    return serve(tmp_path_factory.mktemp("autoencoder"), autoencoder_card(), ToyAutoencoder, 3)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Samples, encodes, decodes and scores points of the plane."""
    return serve(tmp_path_factory.mktemp("points"), points_card(), ToyPoints)


@pytest.fixture(scope="session")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Samples pictures, also under given ones, and translates them."""
    return serve(tmp_path_factory.mktemp("painter"), painter_card(), ToyPainter)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two processes with as many threads as processors fight for them; a worker has one thread, too."""
    torch.set_num_threads(1)


@pytest.fixture
def store(shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store of the test's own."""
    return shutil.copytree(shared_store, tmp_path_factory.mktemp("own") / "store")


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one small model of a family that is shipped."""
    config = {"height": 4, "width": 4, "channels": 1, "classes": 3, "features": 4, "embedding_dim": 6}
    family = Family(name="classifier", config=config)
    card = dataclasses.replace(classifier_card(), name="small", family=family)
    store = tmp_path_factory.mktemp("store")
    torch.manual_seed(0)
    write_model(store / "small", card, ConvClassifier.from_config(config))
    return store
