"""Evaluations as runners see them: taken up for a turn, told about, ended; and which runners are alive.

A turn is one runner's time with one evaluation. Whatever it writes is guarded by its name, so that a runner that was
taken for dead, or whose evaluation was cancelled, writes nothing. Every function blocks and may raise JobsUnreachable.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.evaluation.jobs.database import Database, Now, evaluations, reports, runners, to_text
from service.evaluation.record import State
from service.evaluation.results import GateOutcome, Metric, PanelResult

__all__ = ["ALIVE_S", "MOST_ATTEMPTS", "Turn", "Turns"]

ALIVE_S = 10.0
"""A runner whose last beat is older is taken for dead."""

MOST_ATTEMPTS = 10
"""How often an evaluation is taken up without getting any further before it has failed."""

_FORGOTTEN_S = 3600.0  # of runners that ended without saying so
_MOST_CHARACTERS = 2000  # of a reason
_SETTLING_S = 5.0  # a gateway may still be about to enqueue what it just kept


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One runner's time with one evaluation.

    Attributes:
        id: of the evaluation.
        name: what its writes are guarded by.
        specification: as it was kept; of any format.
        stage: where an earlier turn got to.
        attempts: how many turns, with this one, began since the evaluation last got further.
    """

    id: str
    name: str
    specification: dict[str, Any]
    stage: str
    attempts: int


class Turns:
    """What one runner does with the table of evaluations.

    Args:
        database: open.
        runner: this runner's id.
    """

    def __init__(self, database: Database, runner: str) -> None:
        self._database, self.runner = database, runner

    # -- one evaluation ------------------------------------------------------------------------------------------

    def take(self, evaluation_id: str) -> Turn | None:
        """Begin a turn; None: it has ended, or is gone."""
        name = secrets.token_hex(8)
        values = {
            "state": State.RUNNING.value,
            "owner": name,
            "runner": self.runner,
            "reason": "",
            "enqueued": True,
            "attempts": evaluations.c.attempts + 1,
            "update_unix_s": Now(),
            "start_unix_s": sa.case((evaluations.c.start_unix_s == 0.0, Now()), else_=evaluations.c.start_unix_s),
        }
        open_ones = evaluations.c.state.in_([State.QUEUED.value, State.RUNNING.value])
        wanted = (evaluations.c.specification, evaluations.c.stage, evaluations.c.attempts)
        with self._database.write() as connection:
            statement = sa.update(evaluations).where(evaluations.c.id == evaluation_id, open_ones).values(**values)
            row = connection.execute(statement.returning(*wanted)).mappings().first()
        if row is None:
            return None
        kept = json.loads(row["specification"])
        return Turn(id=evaluation_id, name=name, specification=kept, stage=row["stage"], attempts=row["attempts"])

    def tell(self, turn: Turn, *, stage: str, done: int, total: int, reason: str) -> bool:
        """Say how far it is; False: the turn is over."""
        further = done > evaluations.c.done
        return self._write(
            turn,
            stage=sa.case((done >= evaluations.c.done, stage), else_=evaluations.c.stage),
            total=total,
            reason=_plain(reason),
            done=sa.case((further, done), else_=evaluations.c.done),
            attempts=sa.case((further, 1), else_=evaluations.c.attempts),
        )

    def partial(self, turn: Turn, metrics: Sequence[Metric], panels: Sequence[PanelResult]) -> bool:
        """Say what was found so far; False: the turn is over."""
        return self._write(turn, metrics=to_text(metrics), panels=to_text(panels))

    def succeed(
        self,
        turn: Turn,
        *,
        metrics: Sequence[Metric],
        panels: Sequence[PanelResult],
        gates: Sequence[GateOutcome],
        bundle: bytes,
    ) -> bool:
        """End it with its report; False: the turn is over, and nothing was written."""
        found: dict[str, Any] = {"metrics": to_text(metrics), "panels": to_text(panels), "gates": to_text(gates)}
        found["done"] = evaluations.c.total
        with self._database.write() as connection:
            if not self._update(connection, turn, report_bytes=len(bundle), **_ended(State.SUCCEEDED, ""), **found):
                return False
            connection.execute(sa.delete(reports).where(reports.c.id == turn.id))
            connection.execute(sa.insert(reports).values(id=turn.id, bundle=bundle))
            return True

    def fail(self, turn: Turn, reason: str) -> bool:
        """End it without a report; False: the turn is over."""
        return self._write(turn, **_ended(State.FAILED, reason))

    def release(self, turn: Turn) -> bool:
        """Let go of it in good order: that is not held against the evaluation."""
        return self._write(turn, attempts=0, reason="waits for a runner")

    def _write(self, turn: Turn, **values: Any) -> bool:
        with self._database.write() as connection:
            return self._update(connection, turn, **values)

    def _update(self, connection: sa.Connection, turn: Turn, **values: Any) -> bool:
        mine = (
            evaluations.c.id == turn.id,
            evaluations.c.state == State.RUNNING.value,
            evaluations.c.owner == turn.name,
        )
        statement = sa.update(evaluations).where(*mine).values(update_unix_s=Now(), **values)
        return bool(connection.execute(statement).rowcount)

    # -- runners -------------------------------------------------------------------------------------------------

    def beat(self, turns: Collection[Turn]) -> set[str]:
        """Say that this runner is alive, and so are its turns; returns the names of those that are not over."""
        with self._database.write() as connection:
            alive = sa.update(runners).where(runners.c.id == self.runner).values(beat_unix_s=Now())
            if not connection.execute(alive).rowcount:
                me = {"id": self.runner, "host": socket.gethostname(), "pid": os.getpid()}
                connection.execute(sa.insert(runners).values(**me, start_unix_s=Now(), beat_unix_s=Now()))
            mine = (
                evaluations.c.owner.in_([each.name for each in turns]),
                evaluations.c.state == State.RUNNING.value,
            )
            told = sa.update(evaluations).where(*mine).values(update_unix_s=Now()).returning(evaluations.c.owner)
            return set(connection.execute(told).scalars()) if turns else set()

    def leave(self) -> None:
        """Say that this runner is gone."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runners).where(runners.c.id == self.runner))

    def alive(self) -> set[str]:
        """The ids of runners whose last beat is not old."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runners).where(runners.c.beat_unix_s < Now() - _FORGOTTEN_S))
            found = sa.select(runners.c.id).where(runners.c.beat_unix_s >= Now() - ALIVE_S)
            return set(connection.execute(found).scalars())

    # -- what was left behind ------------------------------------------------------------------------------------

    def not_enqueued(self, most: int) -> list[str]:
        """Evaluations whose gateway went away between keeping and enqueueing them, oldest first."""
        lost = (
            evaluations.c.state == State.QUEUED.value,
            evaluations.c.enqueued.is_(False),
            evaluations.c.create_unix_s < Now() - _SETTLING_S,
        )
        return self._ids(sa.select(evaluations.c.id).where(*lost).order_by(evaluations.c.create_unix_s).limit(most))

    def oldest_queued(self, most: int) -> list[str]:
        """Evaluations that the engine should have, oldest first."""
        waiting = (evaluations.c.state == State.QUEUED.value, evaluations.c.enqueued.is_(True))
        return self._ids(sa.select(evaluations.c.id).where(*waiting).order_by(evaluations.c.create_unix_s).limit(most))

    def silent(self) -> list[str]:
        """Running evaluations that nobody gave a sign of life of for as long as the dead take."""
        old = (
            evaluations.c.state == State.RUNNING.value,
            evaluations.c.update_unix_s < Now() - ALIVE_S,
        )
        return self._ids(sa.select(evaluations.c.id).where(*old))

    def open_among(self, ids: Collection[str]) -> set[str]:
        """Which of these are queued or running."""
        open_ones = evaluations.c.state.in_([State.QUEUED.value, State.RUNNING.value])
        return set(self._ids(sa.select(evaluations.c.id).where(evaluations.c.id.in_(list(ids)), open_ones)))

    def mark_enqueued(self, evaluation_id: str) -> None:
        """Note that the engine knows it."""
        with self._database.write() as connection:
            connection.execute(sa.update(evaluations).where(evaluations.c.id == evaluation_id).values(enqueued=True))

    def _ids(self, wanted: sa.Select[str]) -> list[str]:
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())


def _plain(reason: str) -> str:
    """As any database takes it: names of files and words of workers may hold anything."""
    return reason.encode("utf-8", "replace").decode().replace("\0", "?")[:_MOST_CHARACTERS]


def _ended(state: State, reason: str) -> dict[str, Any]:
    return {"state": state.value, "reason": _plain(reason), "end_unix_s": Now(), "owner": ""}
