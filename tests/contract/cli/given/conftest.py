"""A gateway over in-memory models of 2×3 pixels, in a thread, with a data set of such pictures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from fount.readers import DatasetSource
from service.config import GatewayConfig
from service.datasets import DatasetSettings
from service.domain import Operation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import serving
from tests.contract.given.streams import EXTRAS, FULL, pixels, pool_of_models


@pytest.fixture(scope="package")
def pool() -> MemoryPool:
    """The models of the contract's tests, one of each other shape that commands treat in another way."""
    pool = pool_of_models()
    wide = EXTRAS | {"latent_dim": 4, "directions": {}}
    pool.models += [
        memory_model("wide", labels=(), operations=FULL - {Operation.CLASSIFY}, **wide),
        memory_model("large", labels=(), dims=(4, 4, 1), operations=FULL - {Operation.CLASSIFY}, **EXTRAS),
        memory_model(
            "line", labels=(), operations=FULL - {Operation.CLASSIFY}, **EXTRAS | {"latent_dim": 1, "directions": {}}
        ),
        memory_model("colour", labels=(), dims=(2, 3, 3), operations=FULL - {Operation.CLASSIFY}, **EXTRAS),
    ]
    translates = frozenset({Operation.TRANSLATE})
    pool.models += [
        memory_model("enlarger", labels=(), operations=translates, input_dims=(1, 2, 1)),
        memory_model("painter", labels=(), dims=(2, 3, 3), operations=translates, input_dims=(2, 3, 1)),
        memory_model("ways", labels=("down", "up"), operations=translates, input_dims=(2, 3, 1)),
    ]
    of_text = EXTRAS | {"latent_dim": 0, "directions": {}}
    pool.models.append(
        memory_model("verse", labels=(), operations=FULL - {Operation.CLASSIFY}, max_text_bytes=16, **of_text)
    )
    with_bounds = memory_model("bounds", labels=(), operations=FULL - {Operation.CLASSIFY}, **EXTRAS)
    pool.models.append(replace(with_bounds, parameters={"importance_samples": with_bounds.parameters["steps"]}))
    return pool


@pytest.fixture(scope="package")
def address(pool: MemoryPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway that serves until the last of the tests has ended."""
    file = tmp_path_factory.mktemp("data") / "small.npz"
    labels = np.arange(30) % 3
    np.savez(file, images=pixels(30), labels=labels, classes=np.array(["zero", "one", "two"]))
    config = GatewayConfig(
        port=0, http_port=0, datasets=(DatasetSettings(source=DatasetSource(name="small", path=file)),)
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = serving(pool, config=config)
    try:
        started = asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
        yield f"127.0.0.1:{started.gateway.port}"
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def server(address: str, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNT_SERVER", address)
    pool.calls.clear()
