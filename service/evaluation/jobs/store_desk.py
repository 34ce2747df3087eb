"""The pipeline's desk over the table of evaluations, for one turn of one runner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from service.errors import JobsUnreachable
from service.evaluation.jobs.database import insist_on_room
from service.evaluation.jobs.durable import Steps
from service.evaluation.jobs.leases import Turn, Turns
from service.evaluation.pipeline.reporter import Over
from service.evaluation.results import GateOutcome, Metric, PanelResult

__all__ = ["StoreDesk"]

_log = logging.getLogger(__name__)

_PATIENCE_S, _PAUSE_S = 60.0, 1.0


class StoreDesk:
    """See `service.evaluation.pipeline.reporter.Desk`.

    A database that does not answer is asked again for a minute; then the evaluation is let go, for whoever goes on when
    it is back.

    Args:
        turns: of this runner.
        turn: whose writes these are.
        steps: does a step unless it was done before.
        ending: set when this runner is to end: nothing new is begun then.
        ends: called before the turn ends by itself.
    """

    def __init__(
        self, turns: Turns, turn: Turn, steps: Steps, ending: asyncio.Event, ends: Callable[[Turn], None]
    ) -> None:
        self._turns, self._turn, self._steps, self._ending, self._ends = turns, turn, steps, ending, ends

    async def tell(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        """See `Desk`."""
        if self._ending.is_set():
            raise Over
        await self._write(partial(self._turns.tell, self._turn, stage=stage, done=done, total=total, reason=reason))

    async def partial(self, metrics: Sequence[Metric], panels: Sequence[PanelResult]) -> None:
        """See `Desk`."""
        await self._write(partial(self._turns.partial, self._turn, metrics, panels))

    async def succeed(
        self,
        *,
        metrics: Sequence[Metric],
        panels: Sequence[PanelResult],
        gates: Sequence[GateOutcome],
        bundle: bytes,
    ) -> None:
        """See `Desk`."""
        self._ends(self._turn)
        write = partial(self._turns.succeed, self._turn, metrics=metrics, panels=panels, gates=gates, bundle=bundle)
        await self._write(write)

    async def fail(self, reason: str) -> None:
        """See `Desk`."""
        self._ends(self._turn)
        await self._write(partial(self._turns.fail, self._turn, reason), waits_for_room=True)

    async def durably(self, work: Callable[[], Awaitable[str]]) -> str:
        """See `Desk`."""
        return await self._steps(work)

    async def _write(self, write: Callable[[], bool], *, waits_for_room: bool = False) -> None:
        began = time.monotonic()
        while True:
            try:
                if await asyncio.to_thread(write):
                    return
                raise Over
            except JobsUnreachable as error:
                if not waits_for_room:  # this evaluation's own files may have taken it
                    insist_on_room(error)
                if self._ending.is_set() or time.monotonic() - began > _PATIENCE_S:
                    _log.warning("%s is let go: %s", self._turn.id, error)
                    raise Over from error
                await asyncio.sleep(_PAUSE_S)
