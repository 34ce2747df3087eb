"""Requests during faults: each is drawn without a client's retries, and its outcome is checked.

A request may end with every byte right, or with one of the statuses that the fault allows; the bytes received before
such an end must be right as well. A request still open well after its deadline hangs, and fails the test.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest

from fount import Client
from fount.client.status import error_of
from fount.errors import FountError
from fount.sampling.request import sample_request
from fount.v1 import sampling_pb2_grpc
from tests.e2e.planted import NAME, SAMPLE_BYTES, Traces
from tests.e2e.processes import Served, serving

SEED = 20_264
TRUTH = 20_000
GRACE_S = 5.0
UNREAD_BYTES = 64 << 20
"""What the shared stack's gateway may keep of samples that nobody has read."""
OK = grpc.StatusCode.OK
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
"""Every connection is one of its own, and asks once."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The outcome of one request.

    Attributes:
        start_index, count: the requested range.
        data: the bytes received.
        code: how it ended.
        error: the same, as a client's error; None when it ended well.
        seconds: how long it took.
    """

    start_index: int
    count: int
    data: bytes = field(repr=False)
    code: grpc.StatusCode
    error: FountError | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Planted workers behind a gateway, and what their samples are.

    Attributes:
        served: the gateway.
        traces: of its workers.
        truth: samples 0 to TRUTH of SEED, drawn while all was well.
    """

    served: Served
    traces: Traces
    truth: bytes = field(repr=False)

    def is_right(self, drawn: Drawn) -> bool:
        """Whether the received bytes are right, as far as the reference is known."""
        truth = self.truth[drawn.start_index * SAMPLE_BYTES :][: len(drawn.data)]
        return truth == drawn.data[: len(truth)]

    def check(self, requests: Iterable[Drawn], *allowed: grpc.StatusCode) -> Counter[grpc.StatusCode]:
        """Fail for wrong bytes, missing ones, and statuses that are not allowed; count how requests ended."""
        ends = Counter[grpc.StatusCode]()
        for drawn in requests:
            where = f"{drawn.count} from {drawn.start_index}: {drawn.code} after {drawn.seconds:.1f} s, {drawn.error!r}"
            where += f" of {drawn.error.__cause__!r}" if drawn.error else ""
            assert self.is_right(drawn), where
            assert drawn.code in (OK, *allowed), where
            if drawn.code is OK:
                assert len(drawn.data) == drawn.count * SAMPLE_BYTES, where
            ends[drawn.code] += 1
        return ends

    def ready_workers(self) -> int:
        """As the gateway counts them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.served.http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return round(sum(float(line.split()[-1]) for line in lines if line.startswith("fount_ready_workers{")))

    def wait_until_ready(self, workers: int = 2, timeout_s: float = 60) -> None:
        """Wait until every worker is back."""
        until(lambda: len(alive(self.served)) == workers, timeout_s)
        until(lambda: self.ready_workers() == workers, timeout_s)


@contextmanager
def planted_stack(
    archives: Path, home: Path, *options: str, pace_s: float = 0.0, truth: bytes | None = None
) -> Iterator[Stack]:
    """Serve planted workers, which measure themselves at a pace; the truth is drawn while all is well."""
    traces = Traces(folder=home / "traces")
    traces.folder.mkdir(exist_ok=True)
    traces.set_pace(pace_s)
    state = ("--state-dir", str(home / "state"))
    with serving(archives, home, *state, *options, extra=traces.environment) as served:
        yield Stack(served=served, traces=traces, truth=truth or draw_truth(served))


def draw_truth(served: Served) -> bytes:
    with Client(served.server) as client:
        return client.sample(NAME, count=TRUTH, seed=SEED).tobytes()


def alive(served: Served) -> list[psutil.Process]:
    """The worker processes there are now; none while TorchServe is away."""
    try:
        return [each for each in served.workers() if each.status() != psutil.STATUS_ZOMBIE]
    except (StopIteration, psutil.NoSuchProcess):
        return []


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s")
        time.sleep(0.05)


@asynccontextmanager
async def sampling(server: str, *options: tuple[str, int]) -> AsyncIterator[sampling_pb2_grpc.SamplingServiceStub]:
    """A connection of its own, which asks once and never again."""
    async with grpc.aio.insecure_channel(server, (*OPTIONS, *options)) as channel:
        yield sampling_pb2_grpc.SamplingServiceStub(channel)


async def draw(
    stub: sampling_pb2_grpc.SamplingServiceStub,
    count: int,
    start_index: int = 0,
    *,
    label: int | None = None,
    timeout_s: float = 60,
    pause_s: float = 0.0,
) -> Drawn:
    """Send one request and read to the end, with a pause after each message."""
    request = sample_request(NAME, {"count": count, "start_index": start_index, "seed": SEED, "label": label})
    started, data, error = time.monotonic(), bytearray(), None
    call = stub.Sample(request, timeout=timeout_s)
    try:
        async with asyncio.timeout(timeout_s + GRACE_S):
            async for response in call:
                data += response.chunk.data
                await asyncio.sleep(pause_s)
    except grpc.aio.AioRpcError as ended:
        error = error_of(ended, "the gateway")
    except TimeoutError:
        pytest.fail(f"{count} from {start_index} hung: open {GRACE_S:g} s after its deadline of {timeout_s:g} s")
    finally:
        call.cancel()
    return Drawn(start_index=start_index, count=count, data=bytes(data), code=await call.code(), error=error,
                 seconds=time.monotonic() - started)  # fmt: skip


async def draw_many(server: str, counts: Iterable[int], *, timeout_s: float = 60) -> list[Drawn]:
    """Send many requests at once over one connection, each for its own range."""
    async with sampling(server) as stub:
        draws = [draw(stub, count, (k * 997) % (TRUTH - count), timeout_s=timeout_s) for k, count in enumerate(counts)]
        return list(await asyncio.gather(*draws))
