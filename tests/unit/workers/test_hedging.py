"""Calls that are repeated while in flight: the first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import NotReady, WorkerFault, WorkerLost
from service.workers.torchserve.pool import Hedge

STALLED_S = 0.05


def call(delay_s: float, result: str | Exception) -> asyncio.Task[str]:
    async def answer() -> str:
        await asyncio.sleep(delay_s)
        if isinstance(result, Exception):
            raise result
        return result

    return asyncio.get_running_loop().create_task(answer())


def hedged(
    first: asyncio.Task[str], *again: Callable[[], asyncio.Task[str]], ended: Callable[[], None] = lambda: None
) -> Awaitable[str]:
    second = again[0] if again else lambda: None
    return Hedge[str](ended).answer(first, second, STALLED_S)


async def test_a_call_that_is_answered_in_time_is_not_repeated() -> None:
    repeated: list[int] = []
    assert await hedged(call(0, "first"), lambda: repeated.append(1) or call(0, "second")) == "first"
    assert repeated == []


async def test_a_stalled_call_returns_the_answer_of_the_repeated_one() -> None:
    assert await hedged(call(1, "first"), lambda: call(0, "second")) == "second"


async def test_a_slow_call_may_still_answer_first() -> None:
    assert await hedged(call(0.1, "first"), lambda: call(1, "second")) == "first"


async def test_a_call_that_cannot_be_repeated_is_awaited() -> None:
    assert await hedged(call(0.15, "first")) == "first"


async def test_a_repeat_is_tried_until_it_is_possible() -> None:
    impossible = [True, True]
    answer = hedged(call(5, "first"), lambda: None if impossible and impossible.pop() else call(0, "second"))
    assert await asyncio.wait_for(answer, 2) == "second"


async def test_a_repeated_call_that_is_lost_is_followed_by_another() -> None:
    repeats = [call(0, WorkerLost("gone")), call(0.01, "third")]
    assert await asyncio.wait_for(hedged(call(5, "first"), lambda: repeats.pop(0)), 2) == "third"


async def test_an_early_failure_is_raised_immediately() -> None:
    with pytest.raises(WorkerLost, match="first"):
        await hedged(call(0, WorkerLost("first")), lambda: call(0, "second"))


async def test_a_lost_call_waits_for_the_repeated_one() -> None:
    assert await hedged(call(0.1, WorkerLost("first")), lambda: call(0.15, "second")) == "second"


async def test_a_repeated_call_without_a_worker_leaves_the_first_to_answer() -> None:
    assert await hedged(call(0.15, "first"), lambda: call(0, NotReady("second"))) == "first"


async def test_an_error_of_a_worker_is_an_answer() -> None:
    with pytest.raises(WorkerFault, match="second"):
        await hedged(call(1, "first"), lambda: call(0, WorkerFault("second")))


async def test_the_first_error_is_raised_when_both_calls_are_lost() -> None:
    with pytest.raises(WorkerLost, match="first"):
        await hedged(call(0.1, WorkerLost("first")), lambda: call(0, WorkerLost("second")))


async def test_a_call_whose_answer_is_unused_continues_and_its_end_is_reported() -> None:
    first, ended = call(0.15, WorkerLost("first")), asyncio.Event()
    assert await hedged(first, lambda: call(0, "second"), ended=ended.set) == "second"
    assert not first.done()
    async with asyncio.timeout(1):
        await ended.wait()
    assert first.done()


async def test_cancelling_ends_both_calls() -> None:
    calls = [call(5, "first"), call(5, "second")]
    waiting = asyncio.ensure_future(hedged(calls[0], lambda: calls[1]))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait([waiting, *calls], timeout=1)
    assert [each.cancelled() for each in calls] == [True, True]


async def test_closing_cancels_calls_whose_answers_are_unused() -> None:
    hedge, first = Hedge[str](lambda: None), call(5, "first")
    assert await hedge.answer(first, lambda: call(0, "second"), STALLED_S) == "second"
    await hedge.close()
    assert first.cancelled()
