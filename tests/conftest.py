"""What all tests share: how they are distributed over processes."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `pytest -n 2 --dist loadgroup`.

    End-to-end tests form one group, because they share stacks with a TorchServe; they run first, because they take
    longest.
    The tests of any other file form a group, because they share fixtures.
    """
    for item in items:
        e2e = "tests/e2e/" in item.nodeid
        item.add_marker(pytest.mark.xdist_group("e2e" if e2e else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: "tests/e2e/" not in item.nodeid)
