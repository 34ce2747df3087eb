"""Evaluations as gateways see them: made, found, listed, cancelled, deleted, expired.

Changes of state are guarded by the state they leave, so that what has ended stays as it ended. Every function blocks;
each may raise JobsUnreachable.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from service.errors import EvaluationNotDone, Overloaded, UnknownEvaluation
from service.evaluation.jobs.database import Database, Now, evaluations, read_record, reports
from service.evaluation.record import ID, Record, State, Usage
from service.evaluation.specification import Specification

__all__ = ["EvaluationStore", "Limits"]

_DAY_S = 86_400.0
_RETRY_S = 30.0
_LISTED = [column for column in evaluations.c if column.name != "metrics"]
_WAITING, _ENDED = (
    [each.value for each in State if not each.ended],
    [each.value for each in State if each.ended],
)
_TIDIED_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may be kept.

    Attributes:
        queued_each: evaluations of one subject that wait.
        queued: evaluations of all subjects that wait.
        keep_days: how long one is kept once it has ended.
        report_bytes: reports together; the oldest evaluations with one go first.
    """

    queued_each: int = 100
    queued: int = 1000
    keep_days: float = 30.0
    report_bytes: int = 1 << 30


class EvaluationStore:
    """The table of evaluations.

    Args:
        database: open.
        limits: how much may be kept.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self._limits = database, limits
        self._keep_s = limits.keep_days * _DAY_S

    def create(
        self, subject: str, specification: Specification, *, request_id: str, request_digest: str
    ) -> tuple[Record, bool]:
        """Keep an evaluation; the earlier one where the subject has one of that request_id.

        Returns:
            It, and whether it is a new one.

        Raises:
            Overloaded: too many are queued.
        """
        now = time.time()
        values = {
            "id": f"{int(now * 1000):011x}{secrets.token_hex(8)}",  # in order of time
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
                    return earlier, False
                self._check_room(connection, subject)
                self._forget_expired(connection, subject, request_id)
                connection.execute(sa.insert(evaluations).values(**values))
        except sa.exc.IntegrityError:  # another gateway was faster
            earlier = self.find(subject, request_id)
            if earlier is None:
                raise
            return earlier, False
        return self.get(subject, str(values["id"])), True

    def _check_room(self, connection: sa.Connection, subject: str) -> None:
        queued = sa.select(sa.func.count()).where(evaluations.c.state == State.QUEUED.value)
        for most, found, whose in (
            (self._limits.queued_each, queued.where(evaluations.c.subject == subject), "of yours "),
            (self._limits.queued, queued, ""),
        ):
            if connection.execute(found).scalar_one() >= most:
                told = f"{most} evaluations {whose}wait already; cancel some, or ask again when some are done"
                raise Overloaded(told, retry_after_s=_RETRY_S)

    def _forget_expired(self, connection: sa.Connection, subject: str, request_id: str) -> None:
        """Free a request_id that one holds which has expired, and is not tidied away yet."""
        same = (evaluations.c.subject == subject, evaluations.c.request_id == request_id)
        old = sa.select(evaluations.c.id).where(*same, sa.not_(*self._not_expired()))
        connection.execute(sa.delete(reports).where(reports.c.id.in_(old)))
        connection.execute(sa.delete(evaluations).where(evaluations.c.id.in_(old)))

    def mark_enqueued(self, evaluation_id: str) -> None:
        """Note that the engine knows it."""
        with self._database.write() as connection:
            connection.execute(sa.update(evaluations).where(evaluations.c.id == evaluation_id).values(enqueued=True))

    def find(self, subject: str, request_id: str) -> Record | None:
        """The evaluation that a request_id made."""
        with self._database.read() as connection:
            return self._find(connection, subject, request_id)

    def _find(self, connection: sa.Connection, subject: str, request_id: str) -> Record | None:
        mine = (evaluations.c.subject == subject, evaluations.c.request_id == request_id, *self._not_expired())
        row = connection.execute(sa.select(evaluations).where(*mine)).mappings().first()
        return read_record(row, self._keep_s) if row else None

    def get(self, subject: str, evaluation_id: str) -> Record:
        """One evaluation.

        Raises:
            UnknownEvaluation: there is none of that id, or it is someone else's.
        """
        wanted = sa.select(evaluations).where(*self._mine(subject, evaluation_id))
        with self._database.read() as connection:
            row = connection.execute(wanted).mappings().first()
        if row is None:
            raise _unknown(evaluation_id)
        return read_record(row, self._keep_s)

    def page(self, subject: str, *, states: Collection[State], model: str, after: str, limit: int) -> Sequence[Record]:
        """Evaluations, newest first, without metrics. Ids are in order of time, so that a page may begin at any."""
        wanted = sa.select(*_LISTED).where(evaluations.c.subject == subject, *self._not_expired())
        if states:
            wanted = wanted.where(evaluations.c.state.in_([each.value for each in states]))
        if "\0" in model + after:  # which PostgreSQL fails on, and no name has
            return []
        if model:
            wanted = wanted.where(evaluations.c.model == model)
        if after:
            wanted = wanted.where(evaluations.c.id < after)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(evaluations.c.id.desc()).limit(limit)).mappings().all()
        return [read_record(row, self._keep_s) for row in rows]

    def cancel(self, subject: str, evaluation_id: str) -> Record:
        """End one that is queued or running; one that has ended stays as it is. Raises as `get`."""
        waiting = evaluations.c.state.in_(_WAITING)
        ended = {"state": State.CANCELLED.value, "reason": "somebody cancelled it", "end_unix_s": Now(), "owner": ""}
        with self._database.write() as connection:
            connection.execute(
                sa.update(evaluations).where(*self._mine(subject, evaluation_id), waiting).values(**ended)
            )
        return self.get(subject, evaluation_id)

    def delete(self, subject: str, evaluation_id: str) -> None:
        """Remove one with its report; its runner, if it has one, finds it gone. Raises as `get`."""
        with self._database.write() as connection:
            found = connection.execute(sa.delete(evaluations).where(*self._mine(subject, evaluation_id)))
            if not found.rowcount:
                raise _unknown(evaluation_id)
            connection.execute(sa.delete(reports).where(reports.c.id == evaluation_id))

    def report(self, subject: str, evaluation_id: str) -> bytes:
        """The report's bundle; raises as `get`.

        Raises:
            EvaluationNotDone: it has not succeeded.
        """
        record = self.get(subject, evaluation_id)
        if record.state is not State.SUCCEEDED:
            raise EvaluationNotDone(f"evaluation {evaluation_id} is {record.state.value}; only one that has succeeded "
                                    "has a report")  # fmt: skip
        with self._database.read() as connection:
            bundle = connection.execute(
                sa.select(reports.c.bundle).where(reports.c.id == evaluation_id)
            ).scalar_one_or_none()
        if bundle is None:  # deleted, or expired, in between
            raise _unknown(evaluation_id)
        return bytes(bundle)

    def usage(self) -> Usage:
        """Of all subjects together."""
        by_state = sa.select(evaluations.c.state, sa.func.count(), sa.func.sum(evaluations.c.report_bytes)).group_by(
            evaluations.c.state
        )
        oldest = sa.select(Now() - sa.func.min(evaluations.c.create_unix_s)).where(
            evaluations.c.state == State.QUEUED.value
        )
        with self._database.read() as connection:
            found = {State(state): (count, size) for state, count, size in connection.execute(by_state)}
            waits = connection.execute(oldest).scalar_one_or_none()
        return Usage(
            states={state: found.get(state, (0, 0))[0] for state in State},
            report_bytes=int(sum(size or 0 for _, size in found.values())),
            oldest_queued_s=max(0.0, float(waits or 0.0)),
        )

    def tidy(self) -> list[str]:
        """Remove what has expired, and the oldest reports beyond what they may take together; returns the ids."""
        gone = self._expired() + self._beyond_room()
        for first in range(0, len(gone), _TIDIED_AT_ONCE):
            some = gone[first : first + _TIDIED_AT_ONCE]
            with self._database.write() as connection:
                connection.execute(sa.delete(evaluations).where(evaluations.c.id.in_(some)))
                connection.execute(sa.delete(reports).where(reports.c.id.in_(some)))
        return gone

    def _expired(self) -> list[str]:
        old = sa.select(evaluations.c.id).where(
            evaluations.c.state.in_(_ENDED), evaluations.c.end_unix_s < Now() - self._keep_s
        )
        with self._database.read() as connection:
            return list(connection.execute(old).scalars())

    def _beyond_room(self) -> list[str]:
        newest_first = (
            sa.select(evaluations.c.id, evaluations.c.report_bytes)
            .where(evaluations.c.report_bytes > 0)
            .order_by(evaluations.c.end_unix_s.desc(), evaluations.c.id.desc())
        )
        with self._database.read() as connection:
            kept = connection.execute(newest_first).all()
        room, gone = self._limits.report_bytes, []
        for number, (evaluation_id, size) in enumerate(kept):
            room -= size
            if room < 0 and number:  # the newest stays, however large
                gone.append(evaluation_id)
        return gone

    def _mine(self, subject: str, evaluation_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        if not ID.fullmatch(evaluation_id):  # PostgreSQL fails on some characters
            raise _unknown(evaluation_id)
        return evaluations.c.subject == subject, evaluations.c.id == evaluation_id, *self._not_expired()

    def _not_expired(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (sa.or_(evaluations.c.end_unix_s == 0.0, evaluations.c.end_unix_s >= Now() - self._keep_s),)


def _unknown(evaluation_id: str) -> UnknownEvaluation:
    return UnknownEvaluation(f"there is no evaluation {evaluation_id[:80]!r}; it may have expired or been deleted, ask "
                             "ListEvaluations which there are")  # fmt: skip
