"""The real stack: `fount serve` as a process of its own, with a real TorchServe behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import REPOSITORY, Served, run_fount, serving

if TYPE_CHECKING:
    from tests.e2e.augmenting import Augmented
    from tests.e2e.faults import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shipped models: with classes, without, and one that reads images. Each costs every start a second or two.

    All of them together are in test_every_model.py.
    """
    out = tmp_path_factory.mktemp("archives")
    names = ("digits-classifier", "digits-cvae", "digits-vae")
    packed = run_fount("pack", *names, "--model-store", str(REPOSITORY / "model_store"), "--out", str(out), home=out)
    assert packed.returncode == 0, packed.stderr
    return out


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home, with the state that workers keep in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def served(archives: Path, home: Path) -> Iterator[Served]:
    """One stack for all tests that leave it as it was. It evaluates."""
    with serving(archives, home, runners=1) as running:
        yield running


@pytest.fixture
def fount(home: Path, served: Served) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a client command against the shared stack."""

    def run(*arguments: str, **options):
        return run_fount(*arguments, "--server", served.server, home=home, **options)

    return run


@pytest.fixture(scope="session")
def planted_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with faults in it; see tests/e2e/planted.py."""
    from tests.e2e.planted import pack_planted  # with torch, which most of these tests do without

    return pack_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session", params=["direct-calls", pytest.param("no-direct-calls", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest) -> str:
    """The option for how a gateway calls its workers: each directly, or all through TorchServe."""
    return f"--{request.param}"


@pytest.fixture(scope="session")
def planted(planted_archives: Path, way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack of two planted workers, for faults it recovers from."""
    from tests.e2e.faults import UNREAD_BYTES, planted_stack

    options = ("--workers", "2", "--max-unread-bytes", str(UNREAD_BYTES), way)
    with planted_stack(planted_archives, tmp_path_factory.mktemp("stack"), *options) as stack:
        yield stack


@pytest.fixture(scope="session")
def augmented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Augmented]:
    """One stack that plans and makes rows, for all tests that leave it as it was, or that it recovers from."""
    from tests.e2e.augmenting import augmenting_stack, pack_models

    archives = pack_models(tmp_path_factory.mktemp("augmenting"), REPOSITORY / "model_store")
    with augmenting_stack(archives, tmp_path_factory.mktemp("augmented")) as stack:
        yield stack
