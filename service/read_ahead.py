"""Run jobs concurrently and yield their results in order, with a bounded window of work ahead of the reader.

Jobs are read while results are taken, so that a client may wait for its first results before it sends more; reading
stops while a whole window of results is not taken. Closing the generator cancels all work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

__all__ = ["map_in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")


async def map_in_order(
    jobs: AsyncGenerator[Job],
    run: Callable[[Job], Coroutine[Any, Any, Result]],
    *,
    size: Callable[[Job], int],
    window: int,
) -> AsyncGenerator[Result]:
    """Run each job in a task of its own and yield the results in the order of the jobs.

    The first job runs alone, so that whatever refuses it refuses the whole.

    Args:
        jobs: read only while the jobs ahead of the reader are smaller than `window` together. An error raised by it is
            raised after the results of the jobs before it.
        run: called for each job.
        size: of a job, in the unit of `window`.
        window: how much may run, or wait to be taken, before no more jobs are read.
    """
    started = asyncio.Queue[tuple[asyncio.Task[Result], int] | None]()
    tasks = set[asyncio.Task[Any]]()
    ahead, taken = 0, asyncio.Event()

    async def read() -> None:
        nonlocal ahead
        is_first = True
        try:
            async with aclosing(jobs):
                async for job in jobs:
                    task = asyncio.create_task(run(job))
                    tasks.add(task)
                    ahead += size(job)
                    started.put_nowait((task, size(job)))
                    if is_first:
                        await asyncio.wait({task})  # the capacity that later jobs take must not refuse it
                    is_first = False
                    while ahead >= window:
                        taken.clear()
                        await taken.wait()
        finally:
            started.put_nowait(None)

    reader = asyncio.create_task(read())
    tasks.add(reader)
    try:
        while (each := await started.get()) is not None:
            task, job_size = each
            yield await task
            tasks.discard(task)
            ahead -= job_size  # only now: the consumer wants the next result, so it has sent this one
            taken.set()
        await reader  # raises what `jobs` raised
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
