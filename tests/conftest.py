"""What all tests share: how `pytest -n 2` distributes them over processes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder with a path short enough for sockets below it, which those of parallel tests are not."""
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        yield Path(folder)


_FIRST = ("tests/e2e/", "tests/contract/client/test_torch_dataset.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run end-to-end tests first: they take longest, and another process runs the rest meanwhile.

    That process starts with the tests whose data loaders fork, which gRPC allows only while no other thread uses it.
    """
    items.sort(
        key=lambda item: next((k for k, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the tests of a file in one process; and all end-to-end tests, because they share stacks with a TorchServe."""
    from xdist.scheduler import LoadScopeScheduling

    class ByStackOrFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/e2e" if nodeid.startswith("tests/e2e/") else nodeid.partition("::")[0]

    return ByStackOrFile(config, log)
