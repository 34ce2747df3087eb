"""A runner: takes evaluations from the queue and runs each through the pipeline, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from sqlalchemy.engine import URL

from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.database import Database
from service.evaluation.jobs.durable import DurableEngine, DurableRunner, Steps
from service.evaluation.jobs.leases import MOST_ATTEMPTS, Turn, Turns
from service.evaluation.jobs.reaper import REAP_S, Reaper
from service.evaluation.jobs.store_desk import StoreDesk
from service.evaluation.pipeline.files import Files
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.pipeline.reporter import Over
from service.evaluation.specification import Specification

__all__ = ["BEAT_S", "Heartbeat", "Runner"]


_log = logging.getLogger(__name__)

_GRACE_S = 8.0


class Runner:
    """One a process.

    Args:
        url: of the database, as `jobs_url` gives it.
        pipeline: runs evaluations.
        concurrency: how many at once.
    """

    def __init__(self, url: URL, pipeline: Pipeline, *, concurrency: int = 1) -> None:
        self.id = f"{socket.gethostname()[:20]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._pipeline = pipeline
        self._database, self._engine = Database(url), DurableEngine(url)
        self._turns = Turns(self._database, self.id)
        self._heartbeat = Heartbeat(self._turns, self._stop_turn)
        self._reaper = Reaper(self._turns, self._engine, pipeline.folder, lambda: set(self._under_way))
        self._queue = DurableRunner(url, runner=self.id, concurrency=concurrency, evaluate=self._evaluate)
        self._under_way: dict[str, asyncio.Task[None] | None] = {}
        self._ending = asyncio.Event()
        self._reaping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take evaluations from now on.

        Raises:
            SetupError: the database or the folder for files cannot be used.
        """
        folder = self._pipeline.folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(f"{folder} cannot be made: {error}; name another with --work-dir") from error
        if not os.access(folder, os.W_OK | os.X_OK) or folder.stat().st_uid != os.getuid():
            raise SetupError(f"{folder} is not this user's, or may not be written; name another with --work-dir")
        await asyncio.to_thread(self._database.open)
        await asyncio.to_thread(self._engine.open)
        try:
            await self._heartbeat.start()
        except JobsUnreachable as error:
            raise SetupError(str(error)) from error
        await self._queue.start()
        self._reaping = asyncio.create_task(self._reap())

    async def stop(self) -> None:
        """Finish the steps under way, let go of their evaluations, and end."""
        self._ending.set()
        if self._reaping:
            self._reaping.cancel()
            await asyncio.wait([self._reaping])
        tasks = [each for each in self._under_way.values() if each]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE_S)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        if self._reaping:  # it was started
            await self._queue.stop()
        with contextlib.suppress(JobsUnreachable):
            await asyncio.to_thread(self._reaper.give_up)
        await self._heartbeat.stop()
        self._engine.close()
        self._database.close()

    async def _evaluate(self, evaluation_id: str, steps: Steps) -> None:
        if self._ending.is_set():
            raise Over
        self._under_way[evaluation_id] = task = asyncio.current_task()
        try:
            await self._take(evaluation_id, steps)
        finally:
            if self._under_way.get(evaluation_id) is task:
                del self._under_way[evaluation_id]
            self._heartbeat.under_way.pop(evaluation_id, None)

    async def _take(self, evaluation_id: str, steps: Steps) -> None:
        try:
            turn = await asyncio.to_thread(self._turns.take, evaluation_id)
        except JobsUnreachable as error:
            raise Over from error  # it is given away by the reaper, once the database is back
        if turn is None:
            return
        self._heartbeat.under_way[evaluation_id] = turn
        try:
            await self._run(turn, StoreDesk(self._turns, turn, steps, self._ending, self._end_turn))
        finally:
            await self._clear(turn)

    async def _run(self, turn: Turn, desk: StoreDesk) -> None:
        if turn.attempts > MOST_ATTEMPTS:
            await desk.fail(f"its runners died {MOST_ATTEMPTS} times while {turn.stage or 'beginning'}; ask for fewer "
                            "samples, or give runners more memory")  # fmt: skip
            return
        try:
            specification = Specification.from_json(turn.specification)
        except ValueError:
            await desk.fail("asked for by another version of Fount; ask again")
            return
        await self._pipeline.run(turn.id, specification, desk)

    def _end_turn(self, turn: Turn) -> None:
        """A turn is about to end by itself: that it is over will be no news."""
        self._heartbeat.under_way.pop(turn.id, None)

    def _stop_turn(self, turn: Turn) -> None:
        if task := self._under_way.get(turn.id):
            task.cancel()

    async def _clear(self, turn: Turn) -> None:
        """Remove the files of an evaluation that has ended; of one that goes on elsewhere, they stay."""
        with contextlib.suppress(JobsUnreachable):
            if not await asyncio.to_thread(self._turns.open_among, [turn.id]):
                await asyncio.to_thread(Files(self._pipeline.folder / turn.id).remove)
            elif self._ending.is_set():
                await asyncio.to_thread(self._turns.release, turn)

    async def _reap(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._reaper.look)
            except JobsUnreachable as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - this runner's own work goes on
                _log.exception("looking for what was left behind")
            await asyncio.sleep(REAP_S)


# FOLDED FROM service.evaluation.jobs.runner:
# A runner's sign of life, from a thread of its own, so that a busy step does not silence it. On the way it
# learns which turns are over, so that a step that waits for workers ends soon when its evaluation is cancelled.
# The thread watches the event loop in turn: a runner whose loop stands still is as good as dead, and silent.


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
