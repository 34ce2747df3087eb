"""Leases: the right of one runner to write to one evaluation, renewed by heartbeats.

A lease is acquired when a runner takes an evaluation from the queue. Its random token guards every later write, so that
a runner that only seemed dead, or whose evaluation was cancelled or deleted, writes nothing and gets LeaseLost. A lease
that is not renewed for `LEASE_S` seconds has expired: `runner.Recovery` then gives the evaluation to another runner.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.errors import JobsUnreachable
from service.evaluation.jobs.database import Database, Now, evaluations, raise_if_full, reports, to_json_text
from service.evaluation.jobs.queue import RunStep
from service.evaluation.pipeline.reporter import LeaseLost, Results
from service.evaluation.record import State
from service.evaluation.results import GateOutcome

__all__ = ["LEASE_S", "MAX_ATTEMPTS", "Lease", "LeaseReporter", "LeaseStore"]

LEASE_S = 10.0
"""A lease that was not renewed for so long has expired."""

MAX_ATTEMPTS = 10
"""An evaluation fails when so many leases in a row ended without progress."""

_REASON_CHARACTERS = 2000
_CREATION_S = 5.0  # from the row to the job in the queue
_WRITE_TIMEOUT_S, _WRITE_RETRY_S = 60.0, 1.0

_log = logging.getLogger(__name__)

_c = evaluations.c
_is_open = _c.state.in_([State.QUEUED.value, State.RUNNING.value])
_is_in_use = sa.and_(  # its run holds a valid lease, or has just ended the evaluation
    sa.or_(_c.lease != "", sa.not_(_is_open)),
    _c.update_unix_s >= Now() - LEASE_S,
)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write to one evaluation.

    Attributes:
        id: of the evaluation.
        token: guards the writes.
        specification: as stored, of any format.
        stage: where an earlier run was.
        attempts: leases acquired since the evaluation last made progress, with this one.
    """

    id: str
    token: str
    specification: dict[str, Any]
    stage: str
    attempts: int


class LeaseStore:
    """Evaluations as one runner uses them. Every method blocks and may raise JobsUnreachable."""

    def __init__(self, database: Database, runner: str) -> None:
        self._database, self._runner = database, runner

    def acquire(self, evaluation_id: str) -> Lease | None:
        """Acquire a lease, which ends any earlier one; None: the evaluation has ended or was deleted."""
        token = secrets.token_hex(8)
        values = {
            "state": State.RUNNING.value,
            "lease": token,
            "runner": self._runner,
            "reason": "",
            "attempts": _c.attempts + 1,
            "update_unix_s": Now(),
            "start_unix_s": sa.case((_c.start_unix_s == 0.0, Now()), else_=_c.start_unix_s),
        }
        update = sa.update(evaluations).where(_c.id == evaluation_id, _is_open).values(**values)
        with self._database.write() as connection:
            row = connection.execute(update.returning(_c.specification, _c.stage, _c.attempts)).first()
        if row is None:
            return None
        specification = json.loads(row.specification)
        return Lease(id=evaluation_id, token=token, specification=specification, stage=row.stage, attempts=row.attempts)

    def renew(self, leases: Collection[Lease]) -> set[str]:
        """Renew leases; return the tokens of those that are still valid."""
        if not leases:
            return set()
        valid = (_c.lease.in_([each.token for each in leases]), _c.state == State.RUNNING.value)
        update = sa.update(evaluations).where(*valid).values(update_unix_s=Now())
        with self._database.write() as connection:
            return set(connection.execute(update.returning(_c.lease)).scalars())

    def release(self, lease: Lease) -> None:
        """Give an unfinished evaluation back in good order: that does not count as an attempt; raises as `write`."""
        self.write(lease, {"lease": "", "attempts": 0, "reason": "waits for a runner"})

    def write(self, lease: Lease, values: Mapping[str, Any], bundle: bytes | None = None) -> None:
        """Change the columns of an evaluation, and store its report if there is one, in one transaction.

        Raises:
            LeaseLost: the lease is not valid any more, and nothing was written.
        """
        valid = (_c.id == lease.id, _c.state == State.RUNNING.value, _c.lease == lease.token)
        update = sa.update(evaluations).where(*valid).values({"update_unix_s": Now(), **values})
        with self._database.write() as connection:
            if not connection.execute(update).rowcount:
                raise LeaseLost(f"evaluation {lease.id} has ended, or another runner has it")
            if bundle is not None:
                connection.execute(sa.delete(reports).where(reports.c.id == lease.id))
                connection.execute(sa.insert(reports).values(id=lease.id, bundle=bundle))

    def in_use(self) -> set[str]:
        """Return the evaluations that a run holds a valid lease for, or has ended a moment ago."""
        return set(self._ids(sa.select(_c.id).where(_is_in_use)))

    def without_lease(self, limit: int) -> list[str]:
        """Return unfinished evaluations without a valid lease: running ones first, then queued ones by age.

        The newest are left out: their gateways are about to queue them.
        """
        query = sa.select(_c.id).where(_is_open, sa.not_(_is_in_use), _c.create_unix_s < Now() - _CREATION_S)
        return self._ids(query.order_by(_c.state.desc(), _c.create_unix_s).limit(limit))

    def open_among(self, ids: Collection[str]) -> set[str]:
        """Return which of these evaluations are queued or running."""
        return set(self._ids(sa.select(_c.id).where(_c.id.in_(list(ids)), _is_open)))

    def now(self) -> float:
        """Return the time of the database."""
        with self._database.read() as connection:
            return float(connection.execute(sa.select(Now())).scalar_one())

    def _ids(self, query: sa.Select[str]) -> list[str]:
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())


class LeaseReporter:
    """The `JobReporter` of one run: writes under its lease, and repeats a write for a minute if the database is away.

    Without that, a database that restarts would cost every evaluation its evidence in memory and the expiry of a lease.

    Args:
        leases: of this runner.
        lease: guards the writes.
        run_step: of the job engine.
        stopping: set when this runner stops: the run then ends at its next step.
        on_end: called before a write that ends the evaluation, and with it the lease.
    """

    def __init__(
        self,
        leases: LeaseStore,
        lease: Lease,
        run_step: RunStep,
        *,
        stopping: asyncio.Event,
        on_end: Callable[[], None],
    ) -> None:
        self._leases, self._lease, self._run_step = leases, lease, run_step
        self._stopping, self._on_end = stopping, on_end

    async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        """See `JobReporter`; `done` and `stage` never go back, also when a later run repeats steps."""
        if self._stopping.is_set():
            raise LeaseLost("the runner stops")
        is_further = done > _c.done
        values = {
            "stage": sa.case((done >= _c.done, stage), else_=_c.stage),
            "total": total,
            "reason": _storable(reason),
            "done": sa.case((is_further, done), else_=_c.done),
            "attempts": sa.case((is_further, 1), else_=_c.attempts),
        }
        await self._write(values)

    async def report_results(self, results: Results) -> None:
        """See `JobReporter`."""
        await self._write(_columns(results))

    async def succeed(self, results: Results, gates: Sequence[GateOutcome], bundle: bytes) -> None:
        """See `JobReporter`."""
        self._on_end()
        values = {"gates": to_json_text(gates), "done": _c.total, "report_bytes": len(bundle)}
        await self._write(_ended(State.SUCCEEDED, "") | _columns(results) | values, bundle)

    async def fail(self, reason: str) -> None:
        """See `JobReporter`; waits for disk space, too, which the files of this evaluation may have taken."""
        self._on_end()
        await self._write(_ended(State.FAILED, reason), wait_for_space=True)

    async def run_step(self, work: Callable[[], Awaitable[str]]) -> str:
        """See `JobReporter`."""
        return await self._run_step(work)

    async def _write(
        self, values: Mapping[str, Any], bundle: bytes | None = None, *, wait_for_space: bool = False
    ) -> None:
        start_s = time.monotonic()
        while True:
            try:
                return await asyncio.to_thread(self._leases.write, self._lease, values, bundle)
            except JobsUnreachable as error:
                if not wait_for_space:
                    raise_if_full(error)
                if self._stopping.is_set() or time.monotonic() - start_s > _WRITE_TIMEOUT_S:
                    _log.warning("evaluation %s is left to another run: %s", self._lease.id, error)
                    raise LeaseLost(str(error)) from error
                await asyncio.sleep(_WRITE_RETRY_S)


def _columns(results: Results) -> dict[str, Any]:
    return {"metrics": to_json_text(results.metrics), "panels": to_json_text(results.panels)}


def _ended(state: State, reason: str) -> dict[str, Any]:
    return {"state": state.value, "reason": _storable(reason), "end_unix_s": Now(), "lease": ""}


def _storable(reason: str) -> str:
    """Return text that every database accepts: file names and workers' messages may hold any characters."""
    return reason.encode("utf-8", "replace").decode().replace("\0", "?")[:_REASON_CHARACTERS]
