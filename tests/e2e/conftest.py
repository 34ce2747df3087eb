"""The real stack: `fount serve` as a process of its own, with a real TorchServe behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import REPOSITORY, Served, run_fount, serving


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
    """One stack for all tests that leave it as it was."""
    with serving(archives, home) as running:
        yield running


@pytest.fixture
def fount(home: Path, served: Served) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a client command against the shared stack."""

    def run(*arguments: str, **options):
        return run_fount(*arguments, "--server", served.server, home=home, **options)

    return run
