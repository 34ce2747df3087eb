"""DBOS as our engine: durable queues and steps on SQLite or PostgreSQL.

What it does not do by itself is in `reaper.py`: taking over what a dead runner had. Its application version is pinned,
since jobs of another version would never run; steps are anonymous, since what they leave are files, which later steps
make again where they are missing. So a job begun by older code goes on with newer code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.database import insist_on_room, queue_url
from service.evaluation.jobs.engine import Job

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

__all__ = ["DurableEngine", "DurableRunner", "Steps"]

_log = logging.getLogger(__name__)

_APPLICATION = "fount"
_VERSION = "evaluations"  # never changes: see the module
_QUEUE = "evaluations"
_WORKFLOW = "evaluate"
_POLL_S = 0.5
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_MOST_RECOVERIES = 1_000_000  # our own count, in the table of evaluations, decides

Steps = Callable[[Callable[[], Awaitable[str]]], Awaitable[str]]
"""Does a step unless it was done before, and returns what it returned; text, which JSON keeps."""


class DurableEngine:
    """The queue as gateways and reapers use it.

    Args:
        url: of the database of evaluations.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._client_opened: DBOSClient | None = None

    def open(self) -> None:
        """See `Engine`."""
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        _quiet()
        address = queue_url(self._url)
        try:
            if address.startswith("sqlite:///"):
                _use_write_ahead(address.removeprefix("sqlite:///"))
            DBOS.migrate(address)
            self._client_opened = DBOSClient(
                system_database_url=address,
                serializer=DBOSPortableJSONSerializer(),
                application_name=_APPLICATION,
                retry_connection_errors=False,
            )
        except Exception as error:  # whatever the library raises, the queue cannot be used
            shown = self._url.render_as_string(hide_password=True)
            told = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
            raise SetupError(f"the queue of evaluations in {shown} cannot be used: {told}; check --jobs") from error

    def enqueue(self, evaluation_id: str) -> None:
        """See `Engine`."""
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
        """See `Engine`."""
        if self.jobs([evaluation_id]):
            with self._client() as client:
                client.cancel_workflow(evaluation_id)

    def forget(self, ids: Collection[str]) -> None:
        """See `Engine`."""
        known = [each.id for each in self.jobs(ids)]
        with self._client() as client:
            if known:
                client.delete_workflows(known)

    def again(self, evaluation_id: str) -> None:
        """See `Engine`."""
        with self._client() as client:
            client.resume_workflow(evaluation_id, queue_name=_QUEUE)

    def jobs(self, ids: Collection[str]) -> list[Job]:
        """See `Engine`."""
        if not ids:
            return []
        with self._client() as client:
            return [_job(each) for each in client.list_workflows(workflow_ids=list(ids), **_LEAN)]

    def running(self) -> list[Job]:
        """See `Engine`."""
        with self._client() as client:
            return [_job(each) for each in client.list_workflows(status="PENDING", name=_WORKFLOW, **_LEAN)]

    def ended(self, most: int) -> list[str]:
        """See `Engine`."""
        with self._client() as client:
            found = client.list_workflows(status=_ENDED, name=_WORKFLOW, limit=most, **_LEAN)
            return [each.workflow_id for each in found]

    def close(self) -> None:
        """See `Engine`."""
        if self._client_opened is not None:
            self._client_opened.destroy()
            self._client_opened = None

    @contextlib.contextmanager
    def _client(self) -> Iterator[DBOSClient]:
        if self._client_opened is None:
            raise JobsUnreachable("the queue of evaluations is closed")
        try:
            yield self._client_opened
        except (sa.exc.SQLAlchemyError, OSError) as error:
            told = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
            raise JobsUnreachable(f"the queue of evaluations does not answer: {told}") from error


_LEAN: dict[str, Any] = {"load_input": False, "load_output": False}


def _job(found: WorkflowStatus) -> Job:
    return Job(
        id=found.workflow_id,
        runner=found.executor_id or "",
        queued=found.status in ("ENQUEUED", "DELAYED"),
        running=found.status == "PENDING",
    )


class DurableRunner:
    """Takes evaluations from the queue, in this process's event loop. One a process.

    Args:
        url: of the database of evaluations.
        runner: its id; unlike any other's, dead or alive.
        concurrency: how many evaluations it runs at once. The queue keeps one number, of whoever started last.
        evaluate: runs one; what it does by the `Steps` given is not done twice. To let go of an evaluation, it raises
            CancelledError; whatever else it raises ends it.
    """

    def __init__(
        self, url: URL, *, runner: str, concurrency: int, evaluate: Callable[[str, Steps], Awaitable[None]]
    ) -> None:
        self._url, self._runner, self._concurrency, self._evaluate = url, runner, concurrency, evaluate

    async def start(self) -> None:
        """Take evaluations from now on. The engine's tables are there."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        _quiet()
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

        @DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=_MOST_RECOVERIES)
        async def evaluate(evaluation_id: str) -> str:
            await self._evaluate(evaluation_id, _do_step)
            return ""

        DBOS.launch()
        await DBOS.register_queue_async(
            _QUEUE, worker_concurrency=self._concurrency, polling_interval_sec=_POLL_S, on_conflict="always_update"
        )

    async def stop(self) -> None:
        """Take no more, and write no more. Evaluations under way should have let go before."""
        from dbos import DBOS

        thread = ThreadPoolExecutor(max_workers=1)  # not the loop's: that one is the library's, and ends with it
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, DBOS.destroy)
        loop.set_default_executor(ThreadPoolExecutor())
        thread.shutdown(wait=False)


async def _do_step(work: Callable[[], Awaitable[str]]) -> str:
    from dbos import DBOS

    async def step() -> str:
        return await work()

    try:
        return await DBOS.run_step_async({"name": "step"}, step)
    except sa.exc.OperationalError as error:
        insist_on_room(error)
        raise


def _use_write_ahead(file: str) -> None:
    """Set the journal's mode, which the file keeps: readers then do not wait for writers."""
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _quiet() -> None:
    """Keep the library's own words to what we would say, too."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """A cancelled evaluation is none, though the library logs it as an error."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or "Cancelled" not in kind.__name__
