"""The double of evaluations: records in this process, each run in a task of its own, for fast tests."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from service.errors import EvaluationNotDone, Overloaded, UnknownEvaluation
from service.evaluation.jobs.store import Limits
from service.evaluation.pipeline.reporter import Desk, Over
from service.evaluation.record import Progress, Record, State, Usage
from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import Specification

__all__ = ["MemoryEvaluations", "Run"]

_DAY_S = 86_400.0

Run = Callable[[str, Specification, Desk], Awaitable[None]]
"""Runs one evaluation to its end; `Pipeline.run` is one."""


class MemoryEvaluations:
    """See `service.evaluation.record.Evaluations`.

    Args:
        run: runs one; all that are not ended run at once.
        limits: how much may be kept; nothing expires.
    """

    def __init__(self, run: Run, limits: Limits | None = None) -> None:
        self._run, self._limits = run, limits or Limits()
        self._records: dict[str, Record] = {}
        self._reports: dict[str, bytes] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """End all that run."""
        tasks = list(self._tasks.values())
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        """See `Evaluations`."""
        if request_id and (earlier := await self.find(subject, request_id)):
            return earlier
        queued = [each.subject for each in self._records.values() if each.state is State.QUEUED]
        if queued.count(subject) >= self._limits.queued_each or len(queued) >= self._limits.queued:
            raise Overloaded(f"{len(queued)} evaluations wait already; ask again later", retry_after_s=30.0)
        now = time.time()
        record = Record(
            id=f"{int(now * 1000):011x}{secrets.token_hex(8)}",
            subject=subject,
            request_id=request_id,
            request_digest=request_digest,
            specification=specification,
            state=State.QUEUED,
            create_unix_s=now,
        )
        self._records[record.id] = record
        self._tasks[record.id] = asyncio.create_task(self._evaluate(record))
        return record

    async def find(self, subject: str, request_id: str) -> Record | None:
        """See `Evaluations`."""
        mine = (each for each in self._records.values() if each.subject == subject and each.request_id == request_id)
        return next(mine, None)

    async def get(self, subject: str, evaluation_id: str) -> Record:
        """See `Evaluations`."""
        record = self._records.get(evaluation_id)
        if record is None or record.subject != subject:
            raise UnknownEvaluation(f"there is no evaluation {evaluation_id[:80]!r}")
        return record

    async def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        """See `Evaluations`."""
        found = [
            replace(each, metrics=())
            for each in sorted(self._records.values(), key=lambda each: each.id, reverse=True)
            if each.subject == subject
            and (not states or each.state in states)
            and (not model or each.specification.model.name == model)
            and (not after or each.id < after)
        ]
        return found[:limit]

    async def cancel(self, subject: str, evaluation_id: str) -> Record:
        """See `Evaluations`."""
        record = await self.get(subject, evaluation_id)
        if not record.state.ended:
            self.change(evaluation_id, **_ended(State.CANCELLED, "somebody cancelled it"))
            self._tasks[evaluation_id].cancel()
        return self._records[evaluation_id]

    async def delete(self, subject: str, evaluation_id: str) -> None:
        """See `Evaluations`."""
        await self.cancel(subject, evaluation_id)
        del self._records[evaluation_id]
        self._reports.pop(evaluation_id, None)

    async def report(self, subject: str, evaluation_id: str) -> bytes:
        """See `Evaluations`."""
        record = await self.get(subject, evaluation_id)
        if record.state is not State.SUCCEEDED:
            raise EvaluationNotDone(f"evaluation {evaluation_id} is {record.state.value}")
        return self._reports[evaluation_id]

    async def usage(self) -> Usage:
        """See `Evaluations`."""
        states = [each.state for each in self._records.values()]
        queued = [each.create_unix_s for each in self._records.values() if each.state is State.QUEUED]
        return Usage(
            states={state: states.count(state) for state in State},
            report_bytes=sum(map(len, self._reports.values())),
            oldest_queued_s=time.time() - min(queued) if queued else 0.0,
        )

    def change(self, evaluation_id: str, bundle: bytes | None = None, **values: Any) -> None:
        """Write to a record, unless it has ended or is gone.

        Raises:
            Over: it has.
        """
        record = self._records.get(evaluation_id)
        if record is None or record.state.ended:
            raise Over
        if bundle is not None:
            self._reports[evaluation_id] = bundle
        self._records[evaluation_id] = replace(record, **values)

    async def _evaluate(self, record: Record) -> None:
        await asyncio.sleep(0)
        self.change(record.id, state=State.RUNNING, start_unix_s=time.time())
        await self._run(record.id, record.specification, _MemoryDesk(self, record.id))


class _MemoryDesk:
    """See `Desk`."""

    def __init__(self, evaluations: MemoryEvaluations, evaluation_id: str) -> None:
        self._evaluations, self._id = evaluations, evaluation_id
        self._progress = Progress()

    async def tell(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        self._progress = Progress(stage=stage, done=done, total=total, update_unix_s=time.time())
        self._evaluations.change(self._id, progress=self._progress, reason=reason)

    async def partial(self, metrics: Sequence[Metric], panels: Sequence[PanelResult]) -> None:
        self._evaluations.change(self._id, metrics=tuple(metrics), panels=tuple(panels))

    async def succeed(
        self,
        *,
        metrics: Sequence[Metric],
        panels: Sequence[PanelResult],
        gates: Sequence[GateOutcome],
        bundle: bytes,
    ) -> None:
        found = {"metrics": tuple(metrics), "panels": tuple(panels), "gates": tuple(gates)}
        progress = replace(self._progress, done=self._progress.total, update_unix_s=time.time())
        self._evaluations.change(
            self._id, bundle=bundle, report_bytes=len(bundle), progress=progress, **found, **_ended(State.SUCCEEDED, "")
        )

    async def fail(self, reason: str) -> None:
        self._evaluations.change(self._id, **_ended(State.FAILED, reason))

    async def durably(self, work: Callable[[], Awaitable[str]]) -> str:
        return await work()


def _ended(state: State, reason: str) -> dict[str, Any]:
    now = time.time()
    return {"state": state, "reason": reason, "end_unix_s": now, "expire_unix_s": now + 30 * _DAY_S}
