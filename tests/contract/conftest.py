"""A gateway on a free port over in-memory workers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.config import GatewayConfig
from service.workers.memory import MemoryPool
from tests.contract.gateways import Running, serving


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(port=0, http_port=0)


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
async def running(pool: MemoryPool, config: GatewayConfig) -> AsyncIterator[Running]:
    async with serving(pool, config=config) as running:
        yield running
