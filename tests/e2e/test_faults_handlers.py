"""A handler that sleeps past the deadline, exhausts memory or dies on one input: that request ends, others go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import grpc
import psutil
import pytest

from fount.errors import Overloaded
from tests.e2e.faults import OK, SEED, TRUTH, Drawn, Stack, alive, draw, sampling
from tests.e2e.planted import DIES, EXHAUSTS, SLEEP_S, SLEEPS, planted_index

PLANTED = planted_index(SEED)
UNRELATED = 60


@pytest.fixture
def paced(planted: Stack) -> Iterator[Stack]:
    """Workers slow enough for requests to share a call."""
    planted.wait_until_ready()
    planted.traces.set_pace(0.02)
    yield planted
    planted.traces.set_pace(0)
    planted.wait_until_ready()


async def draw_among_unrelated(stack: Stack, label: int, *, timeout_s: float) -> tuple[Drawn, list[Drawn]]:
    """Ask for the planted row of a label, amid requests that share its calls."""
    async with sampling(stack.served.server) as stub:
        before = [draw(stub, 1 + k % 9, 11 * k) for k in range(UNRELATED // 2)]
        guilty = draw(stub, 1, PLANTED, label=label, timeout_s=timeout_s)
        after = [draw(stub, 1 + k % 9, TRUTH - 11 * k - 9) for k in range(UNRELATED // 2)]
        drawn = await asyncio.gather(*before, guilty, *after)
    return drawn.pop(UNRELATED // 2), drawn


async def test_a_handler_that_sleeps_past_a_deadline_ends_that_request_alone(paced: Stack) -> None:
    guilty, unrelated = await draw_among_unrelated(paced, SLEEPS, timeout_s=1.5)
    assert guilty.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert guilty.seconds < SLEEP_S - 1
    assert paced.check(unrelated) == {OK: UNRELATED}


async def test_a_handler_that_exhausts_memory_ends_that_request_alone(paced: Stack) -> None:
    workers = alive(paced.served)
    guilty, unrelated = await draw_among_unrelated(paced, EXHAUSTS, timeout_s=30)
    assert guilty.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(guilty.error, Overloaded)
    assert guilty.error.retry_after_s
    assert "request fewer rows" in str(guilty.error)
    assert paced.check(unrelated) == {OK: UNRELATED}
    async with sampling(paced.served.server) as stub:
        again = [await draw(stub, 1, PLANTED, label=EXHAUSTS) for _ in range(3)]
    most_mib = max(worker.memory_info().rss for worker in workers) >> 20
    print(f"workers took at most {most_mib} MiB after memory had run out in them")  # noqa: T201
    assert {each.code for each in again} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert alive(paced.served) == workers  # neither died of it
    assert most_mib < 1800  # what one keeps for its next batch is at most 1 GiB


@pytest.mark.slow
async def test_an_input_that_kills_workers_ends_that_request_alone(paced: Stack) -> None:
    workers = {worker.pid for worker in alive(paced.served)}
    guilty, unrelated = await draw_among_unrelated(paced, DIES, timeout_s=90)
    died = len(workers - {worker.pid for worker in alive(paced.served)})
    ends = Counter(each.code for each in unrelated)
    slowest = max(each.seconds for each in unrelated)
    print(f"{died} of the first two workers died; the guilty: {guilty.code} after {guilty.seconds:.1f} s, "  # noqa: T201
          f"{guilty.error}; unrelated {dict(ends)}, the slowest after {slowest:.1f} s")  # fmt: skip
    assert died
    assert guilty.code is grpc.StatusCode.INTERNAL  # not UNAVAILABLE, which clients try again
    assert "died each of the" in str(guilty.error)
    assert paced.check(unrelated) == {OK: UNRELATED}
    assert all(psutil.pid_exists(worker.pid) for worker in alive(paced.served))
