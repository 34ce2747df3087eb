"""A runner: takes evaluations from the queue and runs each through the pipeline, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket

from sqlalchemy.engine import URL

from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.database import Database
from service.evaluation.jobs.durable import DurableEngine, DurableRunner, Steps
from service.evaluation.jobs.heartbeat import Heartbeat
from service.evaluation.jobs.leases import MOST_ATTEMPTS, Turn, Turns
from service.evaluation.jobs.reaper import REAP_S, Reaper
from service.evaluation.jobs.store_desk import StoreDesk
from service.evaluation.pipeline.files import Files
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.pipeline.reporter import Over
from service.evaluation.specification import Specification

__all__ = ["Runner"]

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
