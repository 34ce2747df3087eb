"""Clients that read slowly or not at all: each stops its own generation, nobody else's, and memory stays whole.

Run with -s to see the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from fount.sampling.request import sample_request
from tests.e2e.faults import OK, SEED, UNREAD_BYTES, Stack, draw, draw_many, sampling
from tests.e2e.planted import NAME, SAMPLE_BYTES

MEBIBYTE = 1 << 20
UNREAD_MIB = UNREAD_BYTES // MEBIBYTE
PIPE_MIB = 0.5
"""What the gateway may hold for one connection on top of buffered samples: gRPC's own buffers and call objects."""
MANY = 200
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16))
"""A client that takes in no more than 64 KiB unread: whatever else is drawn for it stays with the gateway."""


@pytest.fixture
def whole(planted: Stack) -> Stack:
    """The shared stack, all well: 200 streams' windows are many times what it may keep unread."""
    planted.wait_until_ready()
    return planted


@asynccontextmanager
async def stalled(stack: Stack, readers: int, *options: tuple[str, int]) -> AsyncIterator[None]:
    """Readers that open a stream each, over a connection each, take two messages, and then nothing."""
    async with AsyncExitStack() as connections:
        request = sample_request(NAME, {"count": 5_000_000, "seed": SEED})
        stubs = [await connections.enter_async_context(sampling(stack.served.server, *options)) for _ in range(readers)]
        calls = [stub.Sample(request, timeout=120) for stub in stubs]
        async with asyncio.timeout(60):
            for _ in range(2):
                await asyncio.gather(*(call.read() for call in calls))
        try:
            yield
        finally:
            for call in calls:
                call.cancel()


async def drawn_rows(stack: Stack, quiet_s: float = 1.0, timeout_s: float = 60) -> int:
    """Rows that workers have drawn, when they are idle again."""
    async with asyncio.timeout(timeout_s):
        before = -1
        while (now := sum(sum(batch.rows) for batch in stack.traces.batches())) != before:
            before = now
            await asyncio.sleep(quiet_s)
    return before


def gateway_mib(stack: Stack) -> float:
    return psutil.Process(stack.served.process.pid).memory_info().rss / MEBIBYTE


async def test_a_reader_that_stops_stops_its_own_generation_and_nobody_elses(whole: Stack) -> None:
    before = await drawn_rows(whole)
    async with stalled(whole, 1):
        drawn = await drawn_rows(whole) - before
        print(f"drawn for one stalled reader: {drawn * SAMPLE_BYTES / MEBIBYTE:.1f} MiB")  # noqa: T201
        assert drawn * SAMPLE_BYTES < 32 * MEBIBYTE  # its window, and the buffers of both ends of a connection
        assert whole.check(await draw_many(whole.served.server, [2000] * 4 + [1] * 20, timeout_s=20)) == {OK: 24}


async def test_a_slow_reader_gets_every_byte_and_slows_nobody_down(whole: Stack) -> None:
    async with sampling(whole.served.server) as stub:
        slow = asyncio.create_task(draw(stub, 20_000, timeout_s=60, pause_s=0.1))
        await asyncio.sleep(0.5)
        others = await draw_many(whole.served.server, [1000] * 4 + [1] * 40, timeout_s=20)
        assert not slow.done()
        assert whole.check([*others, await slow]) == {OK: 45}


@pytest.mark.slow
async def test_two_hundred_stalled_readers_take_bounded_memory_and_others_are_served(whole: Stack) -> None:
    await draw_many(whole.served.server, [2000] * 8)  # what a gateway takes at work
    before, rows = gateway_mib(whole), await drawn_rows(whole)
    async with stalled(whole, MANY, *NARROW):
        drawn = (await drawn_rows(whole) - rows) * SAMPLE_BYTES / MEBIBYTE
        during = gateway_mib(whole)
        print(f"gateway: {before:.0f} MiB, with {MANY} stalled readers {during:.0f} MiB ({drawn:.0f} MiB "  # noqa: T201
              f"were drawn for them; {UNREAD_MIB} MiB may be unread)")  # fmt: skip
        others = await draw_many(whole.served.server, [500] * 8 + [1] * 40, timeout_s=30)
    assert whole.check(others) == {OK: 48}
    # What may be unread, and the pipes.
    assert during - before < UNREAD_MIB + PIPE_MIB * MANY
    assert whole.check(await draw_many(whole.served.server, [1] * 20)) == {OK: 20}


@pytest.mark.slow
async def test_two_hundred_slow_readers_all_get_every_byte(whole: Stack) -> None:
    before = gateway_mib(whole)
    async with AsyncExitStack() as connections:
        stubs = [await connections.enter_async_context(sampling(whole.served.server)) for _ in range(MANY)]
        drawing = [draw(stub, 1000, 7 * k, timeout_s=90, pause_s=0.2) for k, stub in enumerate(stubs)]
        drawn = await asyncio.gather(*drawing)
    growth = gateway_mib(whole) - before
    print(f"{MANY} slow readers: gateway +{growth:.0f} MiB")  # noqa: T201
    assert whole.check(drawn) == {OK: MANY}
    assert growth < UNREAD_MIB + PIPE_MIB * MANY
