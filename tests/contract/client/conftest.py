"""Clients of the gateways in `tests.contract.fake_*`, which repeat calls without long delays."""

from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest

from fount import Client, aio
from fount.retry import RetryPolicy
from tests.contract.fake_evaluations import FakeEvaluations, serving_evaluations
from tests.contract.fake_gateway import pixels, serving
from tests.contract.fake_latent import FakeLatent, serving_latent
from tests.contract.fake_plans import FakePlans, serving_plans

QUICK = RetryPolicy(first_attempts=2, attempts=3, base_s=0.001)


def _serving(gateway):
    if isinstance(gateway, FakePlans):
        return serving_plans(gateway)
    if isinstance(gateway, FakeLatent):
        return serving_latent(gateway)
    return serving_evaluations(gateway) if isinstance(gateway, FakeEvaluations) else serving(gateway)


@pytest.fixture
def quick():
    """A retry policy with short delays."""
    return QUICK


@pytest.fixture
def client_of():
    """Serve a fake gateway and connect a synchronous client."""

    @contextmanager
    def connect(gateway, timeout_s=10.0):
        with _serving(gateway) as server, Client(server, timeout_s=timeout_s, retry=QUICK) as client:
            yield client

    return connect


@pytest.fixture
def aio_client_of():
    """Serve a fake gateway and connect an asyncio client."""

    @asynccontextmanager
    async def connect(gateway, timeout_s=10.0):
        with _serving(gateway) as server:
            async with aio.Client(server, timeout_s=timeout_s, retry=QUICK) as client:
                yield client

    return connect


@pytest.fixture
def expected():
    """The samples (N, 4, 4, 1) that the fake gateway draws."""
    return lambda seed, start, count: np.stack([pixels(seed, index) for index in range(start, start + count)])
