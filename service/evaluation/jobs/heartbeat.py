"""A runner's sign of life, from a thread of its own, so that a busy step does not silence it.

On the way it learns which turns are over, so that a step that waits for workers ends soon when its evaluation is
cancelled. The thread watches the event loop in turn: a runner whose loop stands still is as good as dead, and silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from service.errors import JobsUnreachable
from service.evaluation.jobs.leases import Turn, Turns

__all__ = ["BEAT_S", "Heartbeat"]

_log = logging.getLogger(__name__)

BEAT_S = 2.0
_STUCK_S = 30.0


class Heartbeat:
    """Beats while it runs.

    Args:
        turns: of this runner.
        over: called in the event loop when a turn is found to be over.
    """

    def __init__(self, turns: Turns, over: Callable[[Turn], None]) -> None:
        self._turns, self._over = turns, over
        self.under_way: dict[str, Turn] = {}
        self._loop_seen = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._watch: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Begin, with a first beat done when this returns."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._turns.beat, ())
        self._watch = asyncio.create_task(self._be_seen())
        self._thread.start()

    async def stop(self) -> None:
        """End, and say that this runner is gone."""
        self._ending.set()
        if self._watch:
            self._watch.cancel()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, BEAT_S)
        with contextlib.suppress(JobsUnreachable):
            await asyncio.to_thread(self._turns.leave)

    async def _be_seen(self) -> None:
        while True:
            self._loop_seen = time.monotonic()
            await asyncio.sleep(BEAT_S / 2)

    def _beat(self) -> None:
        while not self._ending.wait(BEAT_S):
            if time.monotonic() - self._loop_seen > _STUCK_S:
                _log.error("this runner stands still, and gives its evaluations away")
                continue
            told = list(self.under_way.values())
            try:
                going_on = self._turns.beat(told)
            except JobsUnreachable as error:
                _log.warning("no sign of life could be given: %s", error)
                continue
            for turn in told:
                if turn.name not in going_on and self._loop is not None:
                    self._loop.call_soon_threadsafe(self._look_at, turn)

    def _look_at(self, turn: Turn) -> None:
        if self.under_way.get(turn.id) is turn:  # and it did not end by itself meanwhile
            self._over(turn)
