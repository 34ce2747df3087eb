"""Workers that come and go: asked again until they answer, or until it takes too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import NotReady, Overloaded, Retired, TooLate, UnknownName, WorkerFault
from service.evaluation.pipeline.reporter import Failed

__all__ = ["MOST_WAIT_S", "Patience"]

MOST_WAIT_S = 600.0
"""How long an evaluation waits for workers without getting any further."""

_FIRST_S, _MOST_S = 0.5, 5.0

T = TypeVar("T")


class Patience:
    """Asks workers, again and again where that may help.

    Args:
        waiting: told what it waits for before each new attempt, and "" once it goes on; it may raise to stop waiting.
        most_wait_s: how long without an answer.
    """

    def __init__(self, waiting: Callable[[str], Awaitable[None]], most_wait_s: float = MOST_WAIT_S) -> None:
        self._waiting, self._most_wait_s = waiting, most_wait_s

    async def ask(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """What the workers of a model answer.

        Raises:
            Failed: they do not come back, or never will.
        """
        began, pause, waited = time.monotonic(), _FIRST_S, False
        while True:
            try:
                answer = await call()
            except (Retired, UnknownName, WorkerFault) as error:
                raise Failed(f"{name}: {error}") from error
            except (NotReady, Overloaded, TooLate) as error:
                if time.monotonic() - began > self._most_wait_s:
                    told = f"waited {self._most_wait_s / 60:.0f} minutes for workers of {name} in vain ({error}); "
                    raise Failed(f"{told}ask again when they are ready") from error
                asked_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
            else:
                if waited:
                    await self._waiting("")
                return answer
            waited = True
            await self._waiting(f"waits for workers of {name}")
            await asyncio.sleep(min(_MOST_S, max(pause, asked_s)))
            pause = min(_MOST_S, pause * 1.5)
