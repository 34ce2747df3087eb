"""A call made twice: the first answer counts, and a call that met no worker waits for its twin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import NotReady, WorkerFault, WorkerLost
from service.workers.torchserve.hedging import Hedge

PATIENCE_S = 0.05


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
    return Hedge[str](ended).answer(first, second, PATIENCE_S)


async def test_a_prompt_answer_is_asked_for_once() -> None:
    asked: list[int] = []
    assert await hedged(call(0, "first"), lambda: asked.append(1) or call(0, "second")) == "first"
    assert asked == []


async def test_a_stalled_call_takes_the_others_answer() -> None:
    assert await hedged(call(1, "first"), lambda: call(0, "second")) == "second"


async def test_a_slow_call_may_still_be_the_first() -> None:
    assert await hedged(call(0.1, "first"), lambda: call(1, "second")) == "first"


async def test_without_another_worker_the_call_is_waited_for() -> None:
    assert await hedged(call(0.15, "first")) == "first"


async def test_another_worker_is_asked_for_until_there_is_one() -> None:
    nobody_yet = [True, True]
    answer = hedged(call(5, "first"), lambda: None if nobody_yet and nobody_yet.pop() else call(0, "second"))
    assert await asyncio.wait_for(answer, 2) == "second"


async def test_a_twin_that_is_lost_is_followed_by_another() -> None:
    twins = [call(0, WorkerLost("gone")), call(0.01, "third")]
    assert await asyncio.wait_for(hedged(call(5, "first"), lambda: twins.pop(0)), 2) == "third"


async def test_a_prompt_failure_is_told_at_once() -> None:
    with pytest.raises(WorkerLost, match="first"):
        await hedged(call(0, WorkerLost("first")), lambda: call(0, "second"))


async def test_a_call_that_is_lost_waits_for_its_twin() -> None:
    assert await hedged(call(0.1, WorkerLost("first")), lambda: call(0.15, "second")) == "second"


async def test_a_twin_that_meets_no_worker_leaves_the_first_to_answer() -> None:
    assert await hedged(call(0.15, "first"), lambda: call(0, NotReady("second"))) == "first"


async def test_a_workers_own_error_is_an_answer() -> None:
    with pytest.raises(WorkerFault, match="second"):
        await hedged(call(1, "first"), lambda: call(0, WorkerFault("second")))


async def test_when_both_are_lost_the_first_tells() -> None:
    with pytest.raises(WorkerLost, match="first"):
        await hedged(call(0.1, WorkerLost("first")), lambda: call(0, WorkerLost("second")))


async def test_the_call_left_behind_goes_on_and_its_end_is_told() -> None:
    first, ended = call(0.15, WorkerLost("first")), asyncio.Event()
    assert await hedged(first, lambda: call(0, "second"), ended=ended.set) == "second"
    assert not first.done()
    async with asyncio.timeout(1):
        await ended.wait()
    assert first.done()


async def test_whoever_gives_up_ends_both() -> None:
    calls = [call(5, "first"), call(5, "second")]
    waiting = asyncio.ensure_future(hedged(calls[0], lambda: calls[1]))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait([waiting, *calls], timeout=1)
    assert [each.cancelled() for each in calls] == [True, True]


async def test_closing_ends_what_was_left_behind() -> None:
    hedge, first = Hedge[str](lambda: None), call(5, "first")
    assert await hedge.answer(first, lambda: call(0, "second"), PATIENCE_S) == "second"
    await hedge.close()
    assert first.cancelled()
