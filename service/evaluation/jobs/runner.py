"""A runner: takes evaluations from the queue, runs each through the pipeline, and keeps its leases alive.

Ids come from the queue; progress, results and reports go to the database under a lease. `Recovery`, which every runner
runs, returns the evaluations of dead runners to the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from fount.files import make_private_folder
from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.database import Database
from service.evaluation.jobs.leases import LEASE_S, MAX_ATTEMPTS, Lease, LeaseReporter, LeaseStore
from service.evaluation.jobs.queue import JobQueue, QueueWorker, RunStep
from service.evaluation.pipeline.files import StepFiles
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.pipeline.reporter import LeaseLost
from service.evaluation.record import ID_PATTERN
from service.evaluation.specification import Specification

__all__ = ["Heartbeat", "Recovery", "Run", "Runner"]

_STOP_S = 8.0  # for the steps under way
_HEARTBEAT_S = 2.0
_RECOVERY_INTERVAL_S = 3.0
_TIDY_INTERVAL_S = 30.0
_ABANDONED_S = 3600.0
_AT_ONCE = 200

_log = logging.getLogger(__name__)


class Runner:
    """Runs evaluations, `concurrency` at once; one runner a process."""

    def __init__(self, url: URL, pipeline: Pipeline, *, concurrency: int = 1) -> None:
        self.id = f"{socket.gethostname()[:20]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._pipeline = pipeline
        self._database, self._queue = Database(url), JobQueue(url)
        self._leases = LeaseStore(self._database, self.id)
        self._heartbeat = Heartbeat(self._leases)
        self._recovery = Recovery(self._leases, self._queue, pipeline.folder)
        self._worker = QueueWorker(url, runner=self.id, concurrency=concurrency, evaluate=self._evaluate)
        self._stopping = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take evaluations from now on.

        Raises:
            SetupError: the database or the work folder cannot be used.
        """
        _prepare_folder(self._pipeline.folder)
        await asyncio.to_thread(self._database.open)
        await asyncio.to_thread(self._queue.open)
        await self._worker.start()
        for work, interval_s in ((self._heartbeat.beat, _HEARTBEAT_S), (self._recover, _RECOVERY_INTERVAL_S)):
            self._background.append(asyncio.create_task(_repeat(work, interval_s)))

    async def stop(self) -> None:
        """Finish the steps under way, give their evaluations back to the queue, and close everything."""
        self._stopping.set()
        if tasks := [each.task for each in self._heartbeat.runs if each.task]:
            _, late = await asyncio.wait(tasks, timeout=_STOP_S)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        if self._background:  # it was started
            for work in self._background:
                work.cancel()
            await asyncio.wait(self._background)
            await self._worker.stop()
            with contextlib.suppress(JobsUnreachable):
                await asyncio.to_thread(self._recovery.resume_jobs_of, self.id)
        self._queue.close()
        self._database.close()

    async def _evaluate(self, evaluation_id: str, run_step: RunStep) -> None:
        """Run one evaluation under a lease; raises LeaseLost where another run has to continue."""
        if self._stopping.is_set():
            raise LeaseLost("the runner stops")
        run = Run(asyncio.current_task())
        self._heartbeat.runs.add(run)
        try:
            run.lease = await asyncio.to_thread(self._leases.acquire, evaluation_id)
            if run.lease is not None:
                await self._run(run, run.lease, run_step)
        except JobsUnreachable as error:
            raise LeaseLost(str(error)) from error  # recovery queues it again once the database answers
        finally:
            self._heartbeat.runs.remove(run)

    async def _run(self, run: Run, lease: Lease, run_step: RunStep) -> None:
        reporter = LeaseReporter(self._leases, lease, run_step, stopping=self._stopping, on_end=run.end)
        try:
            if lease.attempts > MAX_ATTEMPTS:
                await reporter.fail(f"its runners died {MAX_ATTEMPTS} times while {lease.stage or 'starting'}; "
                                    "evaluate fewer samples, or give runners more memory")  # fmt: skip
                return
            try:
                specification = Specification.from_json(lease.specification)
            except ValueError:
                await reporter.fail("it was created by another version of Fount; evaluate again")
                return
            await self._pipeline.run(lease.id, specification, reporter)
        finally:
            run.end()
            await self._clean_up(lease)

    async def _clean_up(self, lease: Lease) -> None:
        """Remove the files of an evaluation that has ended; release the lease of one that another run continues."""
        with contextlib.suppress(JobsUnreachable, LeaseLost):
            if not await asyncio.to_thread(self._leases.open_among, [lease.id]):
                await asyncio.to_thread(StepFiles(self._pipeline.folder / lease.id).remove)
            elif self._stopping.is_set():
                await asyncio.to_thread(self._leases.release, lease)

    async def _recover(self) -> None:
        held = {each.lease.id for each in self._heartbeat.runs if each.lease}
        await asyncio.to_thread(self._recovery.run, held)


@dataclass(eq=False)
class Run:
    """One run of an evaluation in this process.

    Attributes:
        task: its task, which is cancelled when the lease is lost.
        lease: None until it is acquired.
        is_ending: it ends the evaluation or leaves it, and with that its lease.
    """

    task: asyncio.Task[Any] | None
    lease: Lease | None = None
    is_ending: bool = False

    def end(self) -> None:
        """Let the run come to its end, also without a valid lease."""
        self.is_ending = True


class Heartbeat:
    """Renews the leases of this runner, in a thread of its own: busy worker threads do not delay it.

    It also cancels the runs whose lease is not valid any more, so that a step that waits for workers ends soon after
    its evaluation is cancelled. It is a task of the event loop: if that hangs, other runners take over. So steps work
    in threads, and call nothing that holds the interpreter lock for seconds.
    """

    def __init__(self, leases: LeaseStore) -> None:
        self.runs: set[Run] = set()
        self._leases = leases
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heartbeat")

    async def beat(self) -> None:
        """Renew once; may raise JobsUnreachable."""
        held = {run: run.lease for run in self.runs if run.lease}
        valid = await asyncio.get_running_loop().run_in_executor(self._thread, self._leases.renew, held.values())
        for run, lease in held.items():
            if lease.token not in valid and not run.is_ending and run.task:
                run.task.cancel()


class Recovery:
    """Makes the queue agree with the table, and removes what ended evaluations left. Every method blocks.

    The table decides: an unfinished evaluation either has a valid lease or is in the queue. What disagrees comes from
    runners that died or left an evaluation, from gateways that died before they changed the queue, or from a lost
    queue. All runners do this at the same time; what two of them do twice costs a repeated step at most.
    """

    def __init__(self, leases: LeaseStore, queue: JobQueue, folder: Path) -> None:
        self._leases, self._queue, self._folder = leases, queue, folder
        self._tidy_at_s = 0.0

    def run(self, held: Collection[str]) -> None:
        """Make one pass; may raise JobsUnreachable.

        Args:
            held: evaluations that this runner works on. Their leases look expired when the machine was suspended.
        """
        self._resume_abandoned(held)
        self._enqueue_missing()
        if time.monotonic() >= self._tidy_at_s:
            self._tidy_at_s = time.monotonic() + _TIDY_INTERVAL_S
            finished = self._queue.finished(_AT_ONCE)
            self._queue.forget(set(finished) - self._leases.open_among(finished))
            self._remove_files()

    def resume_jobs_of(self, runner: str) -> None:
        """Return the jobs of a runner that stops to the queue."""
        for job in self._queue.started():
            if job.runner == runner:
                self._queue.resume(job.id)

    def _resume_abandoned(self, held: Collection[str]) -> None:
        """Queue jobs again that no runner holds a lease for; a job of an ended evaluation then ends at once."""
        started = self._queue.started()
        if not started:
            return
        in_use, now = self._leases.in_use().union(held), self._leases.now()
        for job in started:
            if job.id not in in_use and now - job.start_unix_s > LEASE_S:  # a job that just started has no lease yet
                _log.warning("evaluation %s is taken over from runner %s", job.id, job.runner)
                self._queue.resume(job.id)

    def _enqueue_missing(self) -> None:
        ids = self._leases.without_lease(_AT_ONCE)
        unfinished = self._queue.unfinished(ids)
        for each in ids:
            if each not in unfinished:
                self._queue.forget([each])
                self._queue.enqueue(each)

    def _remove_files(self) -> None:
        """Remove the files of evaluations that are not open; young ones stay, as another database may own them."""
        newest_s = time.time() - _ABANDONED_S
        folders = [
            each.name
            for each in self._folder.iterdir()
            if ID_PATTERN.fullmatch(each.name) and _changed_unix_s(each) < newest_s
        ]
        for each in set(folders) - self._leases.open_among(folders):
            StepFiles(self._folder / each).remove()


async def _repeat(work: Callable[[], Awaitable[None]], interval_s: float) -> None:
    while True:
        try:
            await work()
        except JobsUnreachable as error:
            _log.warning("%s", error)
        except Exception:  # noqa: BLE001 - this runner's evaluations go on
            _log.exception("leases could not be renewed, or jobs not be recovered")
        await asyncio.sleep(interval_s)


def _prepare_folder(folder: Path) -> None:
    try:
        if wrong := make_private_folder(folder):
            _log.warning("%s: it holds rows of data sets; name another with --work-dir", wrong)
    except OSError as error:
        raise SetupError(f"{folder} cannot be created: {error}; name another with --work-dir") from error
    if not os.access(folder, os.W_OK | os.X_OK) or folder.stat().st_uid != os.getuid():
        raise SetupError(f"{folder} belongs to another user, or is not writable; name another with --work-dir")


def _changed_unix_s(folder: Path) -> float:
    """Return when a folder changed, by this machine's clock; infinity if another runner just removed it."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return math.inf
