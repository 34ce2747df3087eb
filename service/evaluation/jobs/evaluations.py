"""Evaluations as gateways use them: created, found, listed, cancelled, deleted, expired, and counted.

A specification enters; records and reports leave. The methods are called on the event loop and work in threads. Every
change of state is guarded by the state it leaves, so that an evaluation that has ended stays as it ended.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from service.errors import EvaluationNotDone, JobsUnreachable, Overloaded, UnknownEvaluation
from service.evaluation.jobs.database import Database, Now, evaluations, jobs_url, read_record, reports
from service.evaluation.jobs.queue import JobQueue
from service.evaluation.record import ID_PATTERN, Record, State, Usage
from service.evaluation.specification import Specification

__all__ = ["Evaluations", "Limits"]

_DAY_S = 86_400.0
_FULL_RETRY_S = 30.0
_TIDY_INTERVAL_S = 30.0
_DELETED_AT_ONCE = 500
_LISTED_COLUMNS = [column for column in evaluations.c if column.name != "metrics"]
_OPEN = [each.value for each in State if not each.ended]
_ENDED = [each.value for each in State if each.ended]

_log = logging.getLogger(__name__)

Owner = TypeVar("Owner")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may be kept.

    Attributes:
        queued_each: queued evaluations of one subject.
        queued: queued evaluations of all subjects.
        keep_days: how long an evaluation is kept after it has ended.
        report_bytes: all reports together; the oldest evaluations with a report are removed first.
    """

    queued_each: int = 100
    queued: int = 1000
    keep_days: float = 30.0
    report_bytes: int = 1 << 30


def _in_thread(method: Callable[Concatenate[Owner, P], T]) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, T]]:
    """Make a blocking method a coroutine function that runs in a thread."""

    @functools.wraps(method)
    async def run(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    return run


class Evaluations:
    """The evaluations in a database. Every method may raise JobsUnreachable: the database does not answer.

    Args:
        url: sqlite:///PATH or postgresql://USER@HOST/DATABASE.
        limits: how much may be kept.

    Raises:
        SetupError: the URL is neither of these.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        parsed = jobs_url(url)
        self._database, self._queue = Database(parsed), JobQueue(parsed)
        self._limits = limits or Limits()
        self._keep_s = self._limits.keep_days * _DAY_S
        self._tidying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the database, create missing tables, and remove expired evaluations from now on.

        Raises:
            SetupError: the database cannot be used as configured.
        """
        await asyncio.to_thread(self._database.open)
        await asyncio.to_thread(self._queue.open)
        self._tidying = asyncio.create_task(self._tidy_forever())

    async def close(self) -> None:
        """Close the database; runners go on with the evaluations."""
        if self._tidying:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        await asyncio.to_thread(self._queue.close)
        await asyncio.to_thread(self._database.close)

    @_in_thread
    def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        """Keep and queue an evaluation; return the earlier one if the subject has one with that request_id.

        Raises:
            Overloaded: too many evaluations are queued.
        """
        now = time.time()
        new_id = f"{int(now * 1000):011x}{secrets.token_hex(8)}"
        values = {
            "id": new_id,
            "subject": subject,
            "request_id": request_id or None,
            "request_digest": request_digest,
            "specification": json.dumps(specification.to_json(), allow_nan=False),
            "model": specification.model.name,
            "state": State.QUEUED.value,
            "create_unix_s": now,
        }
        try:
            with self._database.write() as connection:
                if request_id and (earlier := self._find(connection, subject, request_id)):
                    return earlier
                self._check_limits(connection, subject)
                self._delete_expired(connection, subject, request_id)
                insert = sa.insert(evaluations).values(**values).returning(*evaluations.c)
                created = read_record(connection.execute(insert).mappings().one(), self._keep_s)
        except sa.exc.IntegrityError:  # another gateway created it at the same time
            with self._database.read() as connection:
                if earlier := self._find(connection, subject, request_id):
                    return earlier
            raise
        self._change_queue(self._queue.enqueue, new_id)
        return created

    @_in_thread
    def find(self, subject: str, request_id: str) -> Record | None:
        """Return the evaluation that a request_id created."""
        with self._database.read() as connection:
            return self._find(connection, subject, request_id)

    @_in_thread
    def get(self, subject: str, evaluation_id: str) -> Record:
        """Return one evaluation.

        Raises:
            UnknownEvaluation: there is none with that id, or it is someone else's.
        """
        return self._get(subject, evaluation_id)

    @_in_thread
    def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        """Return evaluations without metrics, newest first, starting after the one with the id `after`."""
        query = sa.select(*_LISTED_COLUMNS).where(evaluations.c.subject == subject, self._not_expired())
        if "\0" in model + after:  # PostgreSQL rejects it, and no name has it
            return []
        if states:
            query = query.where(evaluations.c.state.in_([each.value for each in states]))
        if model:
            query = query.where(evaluations.c.model == model)
        if after:
            query = query.where(evaluations.c.id < after)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(evaluations.c.id.desc()).limit(limit)).mappings().all()
        return [read_record(row, self._keep_s) for row in rows]

    @_in_thread
    def cancel(self, subject: str, evaluation_id: str) -> Record:
        """End an evaluation that is queued or running; one that has ended stays as it is. Raises as `get`."""
        ended = {"state": State.CANCELLED.value, "reason": "cancelled by the caller", "end_unix_s": Now(), "lease": ""}
        with self._database.write() as connection:
            mine = self._mine(subject, evaluation_id)
            connection.execute(sa.update(evaluations).where(*mine, evaluations.c.state.in_(_OPEN)).values(**ended))
        record = self._get(subject, evaluation_id)
        if record.state is State.CANCELLED:
            self._change_queue(self._queue.cancel, evaluation_id)
        return record

    @_in_thread
    def delete(self, subject: str, evaluation_id: str) -> None:
        """Remove an evaluation with its report; its runner, if it has one, stops. Raises as `get`."""
        with self._database.write() as connection:
            deleted = connection.execute(sa.delete(evaluations).where(*self._mine(subject, evaluation_id)))
            if not deleted.rowcount:
                raise _unknown(evaluation_id)
            connection.execute(sa.delete(reports).where(reports.c.id == evaluation_id))
        self._change_queue(self._queue.cancel, evaluation_id)

    @_in_thread
    def report(self, subject: str, evaluation_id: str) -> bytes:
        """Return the report as `service.evaluation.report.bundle` packs it; raises as `get`.

        Raises:
            EvaluationNotDone: the evaluation has not succeeded.
        """
        record = self._get(subject, evaluation_id)
        if record.state is not State.SUCCEEDED:
            raise EvaluationNotDone(f"evaluation {evaluation_id} is {record.state.value}; only one that has succeeded "
                                    "has a report")  # fmt: skip
        query = sa.select(reports.c.bundle).where(reports.c.id == evaluation_id)
        with self._database.read() as connection:
            bundle = connection.execute(query).scalar_one_or_none()
        if bundle is None:  # it was deleted or has expired meanwhile
            raise _unknown(evaluation_id)
        return bytes(bundle)

    @_in_thread
    def usage(self) -> Usage:
        """Count the evaluations of all subjects together."""
        state, size = evaluations.c.state, evaluations.c.report_bytes
        by_state = sa.select(state, sa.func.count(), sa.func.sum(size)).group_by(state)
        oldest = sa.select(Now() - sa.func.min(evaluations.c.create_unix_s)).where(state == State.QUEUED.value)
        with self._database.read() as connection:
            found = {State(name): (count, total) for name, count, total in connection.execute(by_state)}
            oldest_queued_s = connection.execute(oldest).scalar_one_or_none()
        return Usage(
            states={each: found.get(each, (0, 0))[0] for each in State},
            report_bytes=int(sum(total or 0 for _, total in found.values())),
            oldest_queued_s=max(0.0, float(oldest_queued_s or 0.0)),
        )

    @_in_thread
    def tidy(self) -> Sequence[str]:
        """Remove expired evaluations, and the oldest ones beyond the limit on report bytes; return their ids."""
        expired = sa.select(evaluations.c.id).where(evaluations.c.state.in_(_ENDED), sa.not_(self._not_expired()))
        with self._database.read() as connection:
            removed = connection.execute(sa.union(expired, self._beyond_report_bytes())).scalars().all()
        for first in range(0, len(removed), _DELETED_AT_ONCE):
            some = removed[first : first + _DELETED_AT_ONCE]
            with self._database.write() as connection:
                _remove(connection, some)
        return removed

    async def _tidy_forever(self) -> None:
        while True:
            try:
                await self.tidy()
            except JobsUnreachable as error:
                _log.warning("%s", error)
            await asyncio.sleep(_TIDY_INTERVAL_S)

    def _change_queue(self, change: Callable[[str], None], evaluation_id: str) -> None:
        """Change the queue as the table changed; if that fails, `runner.Recovery` does it a few seconds later."""
        try:
            change(evaluation_id)
        except JobsUnreachable as error:
            _log.warning("%s", error)

    def _get(self, subject: str, evaluation_id: str) -> Record:
        query = sa.select(evaluations).where(*self._mine(subject, evaluation_id))
        with self._database.read() as connection:
            if row := connection.execute(query).mappings().first():
                return read_record(row, self._keep_s)
        raise _unknown(evaluation_id)

    def _find(self, connection: sa.Connection, subject: str, request_id: str) -> Record | None:
        same = (evaluations.c.subject == subject, evaluations.c.request_id == request_id)
        row = connection.execute(sa.select(evaluations).where(*same, self._not_expired())).mappings().first()
        return read_record(row, self._keep_s) if row else None

    def _check_limits(self, connection: sa.Connection, subject: str) -> None:
        queued = sa.select(sa.func.count()).where(evaluations.c.state == State.QUEUED.value)
        for limit, query, whose in (
            (self._limits.queued_each, queued.where(evaluations.c.subject == subject), "of yours "),
            (self._limits.queued, queued, ""),
        ):
            if connection.execute(query).scalar_one() >= limit:
                raise Overloaded(f"{limit} evaluations {whose}are queued already; cancel some, or try again when some "
                                 "have ended", retry_after_s=_FULL_RETRY_S)  # fmt: skip

    def _delete_expired(self, connection: sa.Connection, subject: str, request_id: str) -> None:
        """Free the request_id of an evaluation that has expired, but is not removed yet."""
        same = (evaluations.c.subject == subject, evaluations.c.request_id == request_id)
        _remove(connection, sa.select(evaluations.c.id).where(*same, sa.not_(self._not_expired())))

    def _beyond_report_bytes(self) -> sa.Select[str]:
        """Select all but the newest reports that fit; the newest stays, however large."""
        c, newest_first = evaluations.c, (evaluations.c.end_unix_s.desc(), evaluations.c.id.desc())
        size = sa.func.sum(c.report_bytes).over(order_by=newest_first)
        number = sa.func.row_number().over(order_by=newest_first)
        kept = sa.select(c.id, size.label("size"), number.label("number")).where(c.report_bytes > 0).subquery()
        return sa.select(kept.c.id).where(kept.c.size > self._limits.report_bytes, kept.c.number > 1)

    def _mine(self, subject: str, evaluation_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        if not ID_PATTERN.fullmatch(evaluation_id):  # PostgreSQL rejects some characters
            raise _unknown(evaluation_id)
        return evaluations.c.subject == subject, evaluations.c.id == evaluation_id, self._not_expired()

    def _not_expired(self) -> sa.ColumnElement[bool]:
        return sa.or_(evaluations.c.end_unix_s == 0.0, evaluations.c.end_unix_s >= Now() - self._keep_s)


def _remove(connection: sa.Connection, ids: Sequence[str] | sa.Select[str]) -> None:
    connection.execute(sa.delete(reports).where(reports.c.id.in_(ids)))
    connection.execute(sa.delete(evaluations).where(evaluations.c.id.in_(ids)))


def _unknown(evaluation_id: str) -> UnknownEvaluation:
    return UnknownEvaluation(f"there is no evaluation {evaluation_id[:80]!r}; it may have expired or been deleted; "
                             "`fount evaluations` (ListEvaluations) lists yours")  # fmt: skip
