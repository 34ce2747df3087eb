"""Evaluations in a database, as servicers ask for them: the table and the queue, off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import ParamSpec, TypeVar

from service.errors import JobsUnreachable
from service.evaluation.jobs.database import Database, jobs_url
from service.evaluation.jobs.durable import DurableEngine
from service.evaluation.jobs.store import EvaluationStore, Limits
from service.evaluation.record import Record, State, Usage
from service.evaluation.specification import Specification

__all__ = ["DurableEvaluations"]

_log = logging.getLogger(__name__)

_TIDY_S = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class DurableEvaluations:
    """See `service.evaluation.record.Evaluations`.

    Args:
        url: sqlite:///PATH or postgresql://USER@HOST/DATABASE.
        limits: how much may be kept.

    Raises:
        SetupError: the URL is none of these.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        read = jobs_url(url)
        self._database, self._engine = Database(read), DurableEngine(read)
        self._store = EvaluationStore(self._database, limits or Limits())
        self._tidying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Evaluations`."""
        await asyncio.to_thread(self._database.open)
        await asyncio.to_thread(self._engine.open)
        self._tidying = asyncio.create_task(self._tidy())

    async def close(self) -> None:
        """See `Evaluations`."""
        if self._tidying:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        await asyncio.to_thread(self._engine.close)
        await asyncio.to_thread(self._database.close)

    async def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        """See `Evaluations`. What cannot be enqueued now, a runner enqueues in a moment."""
        record, is_new = await asyncio.to_thread(
            self._store.create, subject, specification, request_id=request_id, request_digest=request_digest
        )
        if is_new:
            await self._attempt(self._enqueue, record.id)
        return record

    def _enqueue(self, evaluation_id: str) -> None:
        self._engine.enqueue(evaluation_id)
        self._store.mark_enqueued(evaluation_id)

    async def find(self, subject: str, request_id: str) -> Record | None:
        """See `Evaluations`."""
        return await asyncio.to_thread(self._store.find, subject, request_id)

    async def get(self, subject: str, evaluation_id: str) -> Record:
        """See `Evaluations`."""
        return await asyncio.to_thread(self._store.get, subject, evaluation_id)

    async def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        """See `Evaluations`."""
        return await asyncio.to_thread(self._store.page, subject, states=states, model=model, after=after, limit=limit)

    async def cancel(self, subject: str, evaluation_id: str) -> Record:
        """See `Evaluations`. What the engine does not hear of, runners find out by themselves."""
        record = await asyncio.to_thread(self._store.cancel, subject, evaluation_id)
        if record.state is State.CANCELLED:
            await self._attempt(self._engine.cancel, evaluation_id)
        return record

    async def delete(self, subject: str, evaluation_id: str) -> None:
        """See `Evaluations`."""
        await asyncio.to_thread(self._store.delete, subject, evaluation_id)
        await self._attempt(self._engine.cancel, evaluation_id)

    async def report(self, subject: str, evaluation_id: str) -> bytes:
        """See `Evaluations`."""
        return await asyncio.to_thread(self._store.report, subject, evaluation_id)

    async def usage(self) -> Usage:
        """See `Evaluations`."""
        return await asyncio.to_thread(self._store.usage)

    async def _attempt(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do what somebody else will do later if it does not work now."""
        try:
            await asyncio.to_thread(work, *args, **kwargs)
        except JobsUnreachable as error:
            _log.warning("%s", error)

    async def _tidy(self) -> None:
        while True:
            await self._attempt(self._store.tidy)
            await asyncio.sleep(_TIDY_S)
