"""The augmentation service over in-memory workers, with the plan of EVERYTHING under the ticket `plan`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.augmenting import Augmenting, augmenting


@pytest.fixture
async def service(tmp_path) -> AsyncIterator[Augmenting]:
    async with augmenting(tmp_path) as running:
        yield running
