"""A second try for calls that a stalled worker holds.

A worker that is stopped, swapped out or stuck breaks nothing, so no error tells of it. Addresses give the same bytes
wherever they are drawn, so a call without an answer is made once more elsewhere, and the first answer is taken. The
other call is left to end by itself: until it does, it counts as load of the worker that holds it, which gets no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from service.errors import NotReady

__all__ = ["Hedge"]

Answer = TypeVar("Answer")


class Hedge(Generic[Answer]):
    """Calls that may be made twice.

    Args:
        ended: called when a call that was left behind has ended.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._left: set[asyncio.Task[Answer]] = set()

    async def answer(
        self, first: asyncio.Task[Answer], again: Callable[[], asyncio.Task[Answer] | None], patience_s: float
    ) -> Answer:
        """The first answer.

        Args:
            first: the call, under way.
            again: makes it once more elsewhere; None when there is nowhere now.
            patience_s: how long a call is waited for alone before that; then it is asked for again and again.

        Raises:
            FountServiceError: a worker's answer; or that of the first call, when none could answer.
        """
        calls = [first]
        try:
            answered = await _first_answered(calls, again, patience_s)
        except asyncio.CancelledError:
            for each in calls:
                each.cancel()
            raise
        for each in calls:
            if each is not answered:
                self._leave(each)
        return answered.result()

    async def close(self) -> None:
        """Give up the calls left behind."""
        left = list(self._left)
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _leave(self, call: asyncio.Task[Answer]) -> None:
        self._left.add(call)
        call.add_done_callback(self._forget)

    def _forget(self, call: asyncio.Task[Answer]) -> None:
        self._left.discard(call)
        if not call.cancelled():
            call.exception()  # nobody waits for it: it is not to be logged as never retrieved
            self._ended()


async def _first_answered(
    calls: list[asyncio.Task[Answer]], again: Callable[[], asyncio.Task[Answer] | None], patience_s: float
) -> asyncio.Task[Answer]:
    """Wait for an answer, an error of the worker's own included; a call that met no worker waits for its twin."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and (call.cancelled() or not isinstance(call.exception(), NotReady)):
                return call
        if not done and len(waiting) == 1 and (another := again()):
            calls.append(another)
            waiting.add(another)
    return calls[0]
