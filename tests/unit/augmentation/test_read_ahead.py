"""Concurrent jobs with results in order, ahead of their reader."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from service.read_ahead import map_in_order


async def numbers(count: int, read: list[int] | None = None, error: Exception | None = None):
    for number in range(count):
        if read is not None:
            read.append(number)
        yield number
    if error:
        raise error


async def later(number: int) -> int:
    """Return a number; of five in a row, the first takes longest."""
    for _ in range(5 - number % 5):
        await asyncio.sleep(0)
    return number


async def idle() -> None:
    """Let every other task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def results_of(jobs, run=later, size: int = 1, window: int = 3):
    return map_in_order(jobs, run, size=lambda _: size, window=window)


async def test_results_are_in_the_order_of_the_jobs() -> None:
    assert [each async for each in results_of(numbers(20))] == list(range(20))


async def test_no_more_is_read_than_the_window_holds() -> None:
    read: list[int] = []
    async with aclosing(results_of(numbers(50, read), size=2, window=6)) as results:
        await anext(results)
        await idle()
        assert len(read) == 3


async def test_the_first_job_runs_alone() -> None:
    started: list[int] = []

    async def run(number: int) -> int:
        started.append(number)
        await idle()
        return len(started)

    async with aclosing(results_of(numbers(9), run)) as results:
        assert await anext(results) == 1


async def test_a_job_larger_than_the_window_runs_alone() -> None:
    assert [each async for each in results_of(numbers(4), size=100, window=3)] == [0, 1, 2, 3]


async def test_an_error_of_the_jobs_is_raised_after_earlier_results() -> None:
    results = []
    with pytest.raises(ZeroDivisionError):
        await collect(results_of(numbers(4, error=ZeroDivisionError())), results)
    assert results == [0, 1, 2, 3]


async def collect(results, into: list[int]) -> None:
    async for each in results:
        into.append(each)


async def test_an_error_of_one_job_cancels_the_others() -> None:
    ended: list[int] = []

    async def run(number: int) -> int:
        if number == 1:
            await idle()
            raise ZeroDivisionError
        return await forever(number, ended) if number else number

    with pytest.raises(ZeroDivisionError):
        await collect(results_of(numbers(9), run), [])
    assert 2 in ended


async def forever(number: int, ended: list[int]) -> int:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(number)
    return number


async def test_closing_it_cancels_running_jobs() -> None:
    ended: list[int] = []

    async def run(number: int) -> int:
        return await forever(number, ended) if number else number

    async with aclosing(results_of(numbers(9), run)) as results:
        assert await anext(results) == 0
        await idle()
    assert sorted(ended) == [1, 2]


async def test_results_arrive_before_the_next_job() -> None:
    more = asyncio.Event()

    async def jobs():
        yield 0
        await more.wait()
        yield 1

    async with aclosing(results_of(jobs())) as results:
        assert await anext(results) == 0
        more.set()
        assert await anext(results) == 1
