"""A double of `service.evaluation.jobs.evaluations.Evaluations`: records in a dict, changed by tests or by a runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.errors import EvaluationNotDone, UnknownEvaluation
from service.evaluation.pipeline.reporter import JobReporter, LeaseLost, Results
from service.evaluation.record import Progress, Record, State, Usage
from service.evaluation.results import GateOutcome
from service.evaluation.specification import Specification

Run = Callable[[str, Specification, JobReporter], Awaitable[None]]
"""Runs one evaluation to its end, as `Pipeline.run` does."""


@dataclass
class MemoryEvaluations:
    """Keeps evaluations in this process.

    Attributes:
        run: runs each evaluation in a task of its own; None: tests change the records.
        started: calls of `start` less calls of `close`.
        failure: raised by the next calls.
    """

    run: Run | None = None
    records: dict[str, Record] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    started: int = 0
    failure: Exception | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.started -= 1
        for each in self.tasks:
            each.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        self._fail()
        if request_id and (earlier := await self.find(subject, request_id)):
            return earlier
        record = Record(
            id=f"e{len(self.records):04}",
            subject=subject,
            request_id=request_id,
            request_digest=request_digest,
            specification=specification,
            state=State.QUEUED,
            create_unix_s=time.time(),
        )
        self.records[record.id] = record
        if self.run:
            self.tasks.append(asyncio.ensure_future(self.run(record.id, specification, MemoryReporter(self, record))))
        return record

    async def find(self, subject: str, request_id: str) -> Record | None:
        mine = (each for each in self.records.values() if (each.subject, each.request_id) == (subject, request_id))
        return next(mine, None)

    async def get(self, subject: str, evaluation_id: str) -> Record:
        self._fail()
        record = self.records.get(evaluation_id)
        if record is None or record.subject != subject:
            raise UnknownEvaluation(f"you have no evaluation {evaluation_id!r}")
        return record

    async def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        mine = [each for each in self.records.values() if each.subject == subject and (not after or each.id < after)]
        mine = [each for each in mine if not states or each.state in states]
        mine = [each for each in mine if not model or each.specification.model.name == model]
        return sorted(mine, key=lambda each: each.id, reverse=True)[:limit]

    async def cancel(self, subject: str, evaluation_id: str) -> Record:
        if not (await self.get(subject, evaluation_id)).state.ended:
            self.change(evaluation_id, state=State.CANCELLED, reason="cancelled by the caller")
        return self.records[evaluation_id]

    async def delete(self, subject: str, evaluation_id: str) -> None:
        del self.records[(await self.get(subject, evaluation_id)).id]

    async def report(self, subject: str, evaluation_id: str) -> bytes:
        record = await self.get(subject, evaluation_id)
        if record.state is not State.SUCCEEDED:
            raise EvaluationNotDone(f"{evaluation_id} is {record.state}")
        return self.bundles[evaluation_id]

    async def usage(self) -> Usage:
        self._fail()
        states = {state: sum(each.state is state for each in self.records.values()) for state in State}
        return Usage(states=states, report_bytes=12, oldest_queued_s=3.5)

    def change(self, evaluation_id: str, **changed: Any) -> Record:
        """Change a record, as a runner would."""
        self.records[evaluation_id] = replace(self.records[evaluation_id], **changed)
        return self.records[evaluation_id]

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


class MemoryReporter:
    """A `JobReporter` that changes a record in memory."""

    def __init__(self, evaluations: MemoryEvaluations, record: Record) -> None:
        self._evaluations, self._id = evaluations, record.id

    async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        progress = Progress(stage=stage, done=done, total=total, update_unix_s=time.time())
        self._change(state=State.RUNNING, progress=progress, reason=reason)

    async def report_results(self, results: Results) -> None:
        self._change(metrics=tuple(results.metrics), panels=tuple(results.panels))

    async def succeed(self, results: Results, gates: Sequence[GateOutcome], bundle: bytes) -> None:
        await self.report_results(results)
        self._evaluations.bundles[self._id] = bundle
        self._change(state=State.SUCCEEDED, end_unix_s=time.time(), report_bytes=len(bundle), gates=tuple(gates))

    async def fail(self, reason: str) -> None:
        self._change(state=State.FAILED, end_unix_s=time.time(), reason=reason)

    async def run_step(self, work: Callable[[], Awaitable[str]]) -> str:
        return await work()

    def _change(self, **changed: Any) -> None:
        record = self._evaluations.records.get(self._id)
        if record is None or record.state.ended:
            raise LeaseLost("it has ended")
        self._evaluations.change(self._id, **changed)
