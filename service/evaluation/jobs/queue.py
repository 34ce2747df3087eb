"""DBOS as the job engine: a durable queue, and steps that are not repeated once they are done.

The only module that imports DBOS. Ids of evaluations enter; runs of `evaluate` in a runner's event loop leave. DBOS
does not resume the jobs of a dead process by itself, which `runner.Recovery` does with `resume`.

Two settings keep jobs alive across releases. The application version is pinned: DBOS runs no job of another version.
Steps have no names: what a step leaves is a file, and a later step makes a missing file again, so that newer code can
continue a job that older code started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.database import error_text, queue_url, raise_if_full
from service.evaluation.pipeline.reporter import LeaseLost

if TYPE_CHECKING:
    from dbos import DBOSClient

__all__ = ["JobQueue", "QueueWorker", "RunStep", "StartedJob"]

_APPLICATION = "fount"
_VERSION = "evaluations"  # never changes: see the module docstring
_QUEUE = "evaluations"
_WORKFLOW = "evaluate"
_POLL_INTERVAL_S = 0.5
_WAITING, _STARTED = ["ENQUEUED", "DELAYED"], ["PENDING"]
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_MAX_RECOVERIES = 1_000_000  # `leases.MAX_ATTEMPTS` decides instead
_STATUS_ONLY: dict[str, Any] = {"name": _WORKFLOW, "load_input": False, "load_output": False}

RunStep = Callable[[Callable[[], Awaitable[str]]], Awaitable[str]]
"""Run a step unless an earlier run finished it; return its result, a text."""


@dataclass(frozen=True, kw_only=True)
class StartedJob:
    """A job that a runner took from the queue and has not finished; the runner may have died since.

    Attributes:
        id: of the evaluation.
        runner: who took it.
        start_unix_s: when, by the clock of the database.
    """

    id: str
    runner: str
    start_unix_s: float


class JobQueue:
    """The queue as gateways and recovery use it. Every method blocks; all but `open` may raise JobsUnreachable."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._opened: DBOSClient | None = None

    def open(self) -> None:
        """Connect, and create DBOS's tables where they are missing.

        Raises:
            SetupError: the queue cannot be used as configured.
        """
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        _quiet_dbos()
        address = queue_url(self._url)
        try:
            if address.startswith("sqlite:///"):
                _use_write_ahead_log(address.removeprefix("sqlite:///"))
            DBOS.migrate(address)
            self._opened = DBOSClient(
                system_database_url=address,
                serializer=DBOSPortableJSONSerializer(),
                application_name=_APPLICATION,
                retry_connection_errors=False,
            )
        except Exception as error:  # whatever DBOS raises, the queue cannot be used
            shown = self._url.render_as_string(hide_password=True)
            raise SetupError(
                f"the queue of evaluations in {shown} cannot be used: {error_text(error)}; check --jobs"
            ) from error

    def close(self) -> None:
        """Close all connections."""
        if self._opened is not None:
            self._opened.destroy()
            self._opened = None

    def enqueue(self, evaluation_id: str) -> None:
        """Add a job; one that is there already stays as it is."""
        with self._client() as client:
            client.enqueue(
                {
                    "workflow_name": _WORKFLOW,
                    "queue_name": _QUEUE,
                    "workflow_id": evaluation_id,
                    "app_version": _VERSION,
                },
                evaluation_id,
            )

    def cancel(self, evaluation_id: str) -> None:
        """Remove a job from the queue; if a runner has it, its next checkpoint fails."""
        with self._client() as client:
            client.cancel_workflow(evaluation_id)

    def resume(self, evaluation_id: str) -> None:
        """Queue a started job again, to continue after its last finished step; its earlier run is fenced."""
        with self._client() as client:
            client.resume_workflow(evaluation_id, queue_name=_QUEUE)

    def forget(self, ids: Collection[str]) -> None:
        """Remove jobs with all their steps."""
        if ids:
            with self._client() as client:
                client.delete_workflows(list(ids))

    def started(self) -> list[StartedJob]:
        """Return the jobs that runners took and have not finished."""
        with self._client() as client:
            found = client.list_workflows(status=_STARTED, **_STATUS_ONLY)
        return [
            StartedJob(id=each.workflow_id, runner=each.executor_id or "", start_unix_s=(each.dequeued_at or 0) / 1000)
            for each in found
        ]

    def unfinished(self, ids: Collection[str]) -> set[str]:
        """Return which of these jobs are queued or started."""
        if not ids:
            return set()
        with self._client() as client:
            found = client.list_workflows(workflow_ids=list(ids), status=_WAITING + _STARTED, **_STATUS_ONLY)
        return {each.workflow_id for each in found}

    def finished(self, limit: int) -> list[str]:
        """Return some jobs that will not run again."""
        with self._client() as client:
            found = client.list_workflows(status=_ENDED, limit=limit, **_STATUS_ONLY)
        return [each.workflow_id for each in found]

    @contextlib.contextmanager
    def _client(self) -> Iterator[DBOSClient]:
        if self._opened is None:
            raise JobsUnreachable("the queue of evaluations is closed")
        try:
            yield self._opened
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise JobsUnreachable(f"the queue of evaluations does not answer: {error_text(error)}") from error


class QueueWorker:
    """Takes jobs from the queue and runs them in this process's event loop; one a process, as DBOS demands.

    Args:
        url: of the database of evaluations.
        runner: this runner's id, which no other runner, dead or alive, has.
        concurrency: jobs at once. The queue stores one number: that of the runner that started last.
        evaluate: runs the evaluation with an id; steps given to its `RunStep` are not repeated by a later run. If it
            raises LeaseLost, the job stays unfinished for another run; any other exception ends the job.
    """

    def __init__(
        self, url: URL, *, runner: str, concurrency: int, evaluate: Callable[[str, RunStep], Awaitable[None]]
    ) -> None:
        self._url, self._runner, self._concurrency, self._evaluate = url, runner, concurrency, evaluate

    async def start(self) -> None:
        """Take jobs from now on; `JobQueue.open` has created the tables."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        _quiet_dbos()
        DBOS(
            config={
                "name": _APPLICATION,
                "system_database_url": queue_url(self._url),
                "application_version": _VERSION,
                "executor_id": self._runner,
                "serializer": DBOSPortableJSONSerializer(),
                "run_migrations": False,
                "enable_otlp": False,
                "log_level": "ERROR",
                "scheduler_polling_interval_sec": 3600.0,
            }
        )

        @DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=_MAX_RECOVERIES)
        async def evaluate(evaluation_id: str) -> str:
            with _lease_loss_as_cancellation():
                await self._evaluate(evaluation_id, _run_step)
            return ""

        DBOS.launch()
        await DBOS.register_queue_async(
            _QUEUE,
            worker_concurrency=self._concurrency,
            polling_interval_sec=_POLL_INTERVAL_S,
            on_conflict="always_update",
        )

    async def stop(self) -> None:
        """Take no more jobs, and write no more checkpoints; runs should have ended before."""
        from dbos import DBOS

        thread = ThreadPoolExecutor(max_workers=1)  # DBOS shuts the loop's default executor down
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, DBOS.destroy)
        loop.set_default_executor(ThreadPoolExecutor())
        thread.shutdown(wait=False)


async def _run_step(work: Callable[[], Awaitable[str]]) -> str:
    """See `RunStep`."""
    from dbos import DBOS

    async def step() -> str:
        with _lease_loss_as_cancellation():
            return await work()

    try:
        return await DBOS.run_step_async({"name": "step"}, step)
    except sa.exc.OperationalError as error:
        raise_if_full(error)
        raise


@contextlib.contextmanager
def _lease_loss_as_cancellation() -> Iterator[None]:
    """DBOS stores every Exception as the outcome of a step or a job; only a cancellation leaves it unfinished."""
    try:
        yield
    except LeaseLost as lost:
        raise asyncio.CancelledError(str(lost)) from lost


def _use_write_ahead_log(file: str) -> None:
    """Set the journal mode, which the file keeps: readers do not wait for writers."""
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _quiet_dbos() -> None:
    """Let DBOS log errors only, and no cancelled evaluations, which it logs as errors."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    if _is_no_cancellation not in logger.filters:
        logger.addFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or "Cancelled" not in kind.__name__
