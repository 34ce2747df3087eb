"""What was left behind is taken up: by dead runners, by gateways that died half-way, by cancellations.

Every runner has one. They may all do the same at the same time: whatever they do twice does no harm.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from service.evaluation.jobs.engine import Engine
from service.evaluation.jobs.leases import Turns
from service.evaluation.pipeline.files import Files
from service.evaluation.record import ID

__all__ = ["REAP_S", "Reaper"]

_log = logging.getLogger(__name__)

REAP_S = 3.0
_SELDOM_S = 30.0
_ABANDONED_S = 3600.0
_AT_ONCE = 200


class Reaper:
    """Looks around; see the module. Every method blocks and may raise JobsUnreachable.

    Args:
        turns: of this runner.
        engine: of evaluations.
        folder: of files that evaluations leave.
        mine: the ids of the evaluations that this runner has under way.
    """

    def __init__(self, turns: Turns, engine: Engine, folder: Path, mine: Callable[[], set[str]]) -> None:
        self._turns, self._engine, self._folder, self._mine = turns, engine, folder, mine
        self._seldom_at = 0.0
        self._strays: set[str] = set()  # that this runner seemed to have let go of, the last time

    def look(self) -> None:
        """Take up what is there now."""
        self._enqueue(self._turns.not_enqueued(_AT_ONCE))
        self._take_over()
        if time.monotonic() >= self._seldom_at:
            self._seldom_at = time.monotonic() + _SELDOM_S
            self._revive(self._turns.silent() + self._turns.oldest_queued(_AT_ONCE))
            self._tidy()

    def give_up(self) -> None:
        """Let others have what this runner had; it ends."""
        for job in self._engine.running():
            if job.runner == self._turns.runner:
                self._engine.again(job.id)

    def _enqueue(self, ids: list[str]) -> None:
        for each in ids:
            self._engine.enqueue(each)
            self._turns.mark_enqueued(each)

    def _take_over(self) -> None:
        """Have the jobs of dead runners, and those that this one let go of, begin again behind their last step."""
        running = self._engine.running()
        if not running:
            self._strays = set()
            return
        alive, mine, strays = self._turns.alive(), self._mine(), set()
        wanted = self._turns.open_among([each.id for each in running])
        for job in running:
            lost = job.runner not in alive
            if job.runner == self._turns.runner and job.id not in mine:
                strays.add(job.id)
                lost = job.id in self._strays  # what is not yet begun looks the same, for a moment
            if job.id in wanted and lost:
                _log.warning("evaluation %s is taken over from runner %s", job.id, job.runner)
                self._engine.again(job.id)
            elif lost:
                self._engine.forget([job.id])
        self._strays = strays

    def _revive(self, ids: list[str]) -> None:
        """Enqueue what should be in the engine, and is not."""
        known = {job.id: job for job in self._engine.jobs(ids)}
        for each in ids:
            job = known.get(each)
            if job is None or not (job.queued or job.running):
                _log.warning("evaluation %s was lost from the queue, and is enqueued again", each)
                self._engine.forget([each])
                self._engine.enqueue(each)

    def _tidy(self) -> None:
        """Remove what the engine remembers of ended evaluations, and their files."""
        ended = self._engine.ended(_AT_ONCE)
        self._engine.forget(set(ended) - self._turns.open_among(ended))
        old = time.time() - _ABANDONED_S  # another database's runner may share the folder
        folders = [each.name for each in self._folder.iterdir() if ID.fullmatch(each.name) and _changed(each) < old]
        for each in set(folders) - self._turns.open_among(folders):
            Files(self._folder / each).remove()


def _changed(folder: Path) -> float:
    """When, by this machine's clock; the end of time for one that somebody else just removed."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return math.inf
