"""Run slow work in a thread, so that the event loop stays free, and end it when its caller is gone.

Python waits for every thread when a process ends, so work that goes on without a caller would also keep a gateway from
stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from threading import Event
from typing import TypeVar, TypeVarTuple

from fount.cancellation import cancelled_by

__all__ = ["run_in_thread"]

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


async def run_in_thread(
    function: Callable[[*_Args], _Result], *args: *_Args, executor: Executor | None = None
) -> _Result:
    """Run a function in a thread of the executor, by default the loop's, with the caller's context variables.

    When the caller is cancelled, the function ends at its next `check_cancelled`, and nobody waits for it.
    """
    cancelled = Event()

    def run() -> _Result:
        with cancelled_by(cancelled):
            return function(*args)

    try:
        return await asyncio.get_running_loop().run_in_executor(executor, copy_context().run, run)
    except asyncio.CancelledError:
        cancelled.set()
        raise
