"""One gateway for each test: they are started in milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.gateways import Running, serving
from tests.contract.given.streams import pool_of_models


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving(pool_of_models()) as started:
        yield started
