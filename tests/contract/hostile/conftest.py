"""A gateway with every service: in-memory workers of each role, a small data set, evaluations in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from service.config import GatewayConfig
from service.domain import Operation
from service.gateway import Gateway
from service.workers.memory import MemoryPool, memory_model
from tests.contract.augmenting import CLASSES, GENERATOR, SHAPE, TRANSFORMER, small_settings
from tests.contract.gateways import Running
from tests.contract.memory_evaluations import MemoryEvaluations

LATENT = memory_model(
    "latent",
    operations=frozenset(Operation) - {Operation.EMBED, Operation.TRANSFORM},
    input_dims=(2, 3, 1),
    latent_dim=2,
    score_columns=("a",),
)
READER = memory_model("reader", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.CLASSIFY, Operation.EMBED}))


@pytest.fixture
async def everything(tmp_path: Path) -> AsyncIterator[Running]:
    config = GatewayConfig(port=0, http_port=0, datasets=(small_settings(tmp_path),), max_open_calls=8)
    pool = MemoryPool(models=[GENERATOR, LATENT, READER, TRANSFORMER])
    gateway = Gateway(pool, config, evaluations=MemoryEvaluations())  # type: ignore[arg-type]
    await gateway.start()
    await gateway.wait_ready(5)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}")
    try:
        yield Running(gateway, pool, channel)
    finally:
        await channel.close()
        await gateway.stop(grace_s=0)
