"""Work done ahead of its reader, in order: a bounded window of it, ended with its reader.

Jobs enter as they are read, results leave in the same order. Reading goes on beside answering, so that a client may
wait for its first answers before it sends more; and it stops while a whole window is not taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

__all__ = ["in_order"]

Job = TypeVar("Job")
Made = TypeVar("Made")


class _Room:
    """How much is being made or waits to be taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changed = asyncio.Event()

    def take(self, size: int) -> None:
        self._held += size

    def give(self, size: int) -> None:
        self._held -= size
        self._changed.set()

    async def wait(self) -> None:
        """Return once less than the most is held: the next job may then be of any size."""
        while self._held >= self._most:
            self._changed.clear()
            await self._changed.wait()


async def in_order(
    jobs: AsyncGenerator[Job],
    make: Callable[[Job], Coroutine[Any, Any, Made]],
    *,
    size: Callable[[Job], int],
    window: int,
) -> AsyncGenerator[Made]:
    """Make jobs side by side, and yield what they became in order; closing it cancels all of them.

    The first is made alone: what refuses it refuses the whole.

    Args:
        jobs: read only while less than `window` is made ahead. An error of theirs comes after what was read before it.
        make: called for each, in a task of its own.
        size: of a job, in the unit of `window`.
        window: how much is in the making, or waits to be taken, before no more jobs are read.
    """
    room, begun = _Room(window), asyncio.Queue[tuple[asyncio.Task[Made], int] | None]()
    tasks = set[asyncio.Task[Made]]()

    async def read() -> None:
        is_first = True
        try:
            async with aclosing(jobs):
                async for job in jobs:
                    task = asyncio.create_task(make(job))
                    tasks.add(task)
                    room.take(size(job))
                    begun.put_nowait((task, size(job)))
                    if is_first:
                        await asyncio.wait({task})  # it must not be refused for the room the next ones take
                    is_first = False
                    await room.wait()
        finally:
            begun.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (each := await begun.get()) is not None:
            task, taken = each
            yield await task
            tasks.discard(task)
            room.give(taken)  # only now: the reader came back, so the result has left this process's hands
        await reader  # raises what the jobs did
    finally:
        await _end({reader, *tasks})


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have let go of what they hold."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
