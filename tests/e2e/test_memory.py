"""A long stream takes no more memory than a short one, in the client and in the gateway."""

from __future__ import annotations

import resource
import time

import psutil
import pytest

from fount import Client
from tests.e2e.processes import Served

MEBIBYTE = 1 << 20


def pull(served: Served, count: int) -> tuple[float, float, float]:
    """Growth of client and gateway in MiB after the first tenth, and samples/s."""
    gateway, client_process = psutil.Process(served.process.pid), psutil.Process()
    seen, gateway_peak, client_peak, gateway_base, client_base = 0, 0, 0, 0, 0
    started = time.monotonic()
    with Client(served.server) as client:
        for number, chunk in enumerate(client.stream("digits-cvae", count=count, seed=1)):
            assert chunk.start_index == seen
            seen += len(chunk)
            if number % 50 == 0:
                gateway_peak, client_peak = gateway.memory_info().rss, client_process.memory_info().rss
                if seen < count // 10:
                    gateway_base, client_base = gateway_peak, client_peak
    assert seen == count
    rate = count / (time.monotonic() - started)
    return (client_peak - client_base) / MEBIBYTE, (gateway_peak - gateway_base) / MEBIBYTE, rate


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["hundred-thousand", "million"]
)
def test_memory_is_flat(served: Served, count: int, record_property) -> None:
    client_growth, gateway_growth, rate = pull(served, count)
    record_property("growth_mib", (client_growth, gateway_growth, rate))
    print(f"{count} samples at {rate:.0f}/s: client +{client_growth:.1f} MiB, gateway +{gateway_growth:.1f} MiB, "  # noqa: T201
          f"this process at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")  # fmt: skip
    assert client_growth < 32
    assert gateway_growth < 32
