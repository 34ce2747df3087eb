"""Work done ahead of its reader."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from service.augmentation.read_ahead import in_order


async def numbers(count: int, read: list[int] | None = None, error: Exception | None = None):
    for number in range(count):
        if read is not None:
            read.append(number)
        yield number
    if error:
        raise error


async def later(number: int) -> int:
    await asyncio.sleep(0.001 * (5 - number % 5))
    return number


def made(jobs, make=later, size: int = 1, window: int = 3):
    return in_order(jobs, make, size=lambda _: size, window=window)


async def test_results_come_in_the_order_of_the_jobs() -> None:
    assert [each async for each in made(numbers(20))] == list(range(20))


async def test_no_more_is_read_than_the_window_holds() -> None:
    read: list[int] = []
    async with aclosing(made(numbers(50, read), size=2, window=6)) as results:
        await anext(results)
        await asyncio.sleep(0.05)
        assert len(read) == 3


async def test_the_first_is_made_alone() -> None:
    begun: list[int] = []

    async def make(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(0.02)
        return len(begun)

    async with aclosing(made(numbers(9), make)) as results:
        assert await anext(results) == 1


async def test_a_job_larger_than_the_window_goes_alone() -> None:
    assert [each async for each in made(numbers(4), size=100, window=3)] == [0, 1, 2, 3]


async def test_an_error_of_the_jobs_comes_after_what_was_read_before_it() -> None:
    results = []
    with pytest.raises(ZeroDivisionError):
        await collect(made(numbers(4, error=ZeroDivisionError())), results)
    assert results == [0, 1, 2, 3]


async def collect(results, into: list[int]) -> None:
    async for each in results:
        into.append(each)


async def test_an_error_of_one_ends_the_others() -> None:
    ended: list[int] = []

    async def make(number: int) -> int:
        if number == 1:
            await asyncio.sleep(0.02)
            raise ZeroDivisionError
        return await forever(number, ended) if number else number

    with pytest.raises(ZeroDivisionError):
        await collect(made(numbers(9), make), [])
    assert 2 in ended


async def forever(number: int, ended: list[int]) -> int:
    try:
        await asyncio.sleep(60)
    finally:
        ended.append(number)
    return number


async def test_closing_it_ends_what_is_in_the_making() -> None:
    ended: list[int] = []

    async def make(number: int) -> int:
        return await forever(number, ended) if number else number

    async with aclosing(made(numbers(9), make)) as results:
        assert await anext(results) == 0
        await asyncio.sleep(0.02)
    assert sorted(ended) == [1, 2]


async def test_results_come_while_the_next_job_is_waited_for() -> None:
    more = asyncio.Event()

    async def jobs():
        yield 0
        await more.wait()
        yield 1

    async with aclosing(made(jobs())) as results:
        assert await anext(results) == 0
        more.set()
        assert await anext(results) == 1
