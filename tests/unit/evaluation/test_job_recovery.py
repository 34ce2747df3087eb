"""Recovery: the queue is made to agree with the table, work folders are tidied, and full disks are survived."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import JobsUnreachable
from service.evaluation.jobs import leases
from service.evaluation.jobs.database import raise_if_full
from service.evaluation.jobs.leases import Lease, LeaseReporter
from service.evaluation.jobs.queue import StartedJob
from service.evaluation.jobs.runner import Heartbeat, Recovery, Run
from service.evaluation.pipeline.reference import limit_references
from service.evaluation.pipeline.reporter import Failed

ENDED, OPEN, YOUNG = ("0" * 26 + each for each in "123")
LEASE = Lease(id=ENDED, token="t", specification={}, stage="", attempts=1)
NOW_S = 1000.0


@dataclass
class Table:
    """A lease store: open evaluations, and which of them are in use."""

    open: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def in_use(self) -> set[str]:
        return self.used

    def without_lease(self, limit: int) -> list[str]:
        return sorted(self.open - self.used)[:limit]

    def open_among(self, ids: Collection[str]) -> set[str]:
        return self.open & set(ids)

    def now(self) -> float:
        return NOW_S


@dataclass
class Queue:
    """A job queue: jobs that wait, jobs that runners took, with their age in seconds, and jobs that are done."""

    waiting: set[str] = field(default_factory=set)
    ages_s: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def started(self) -> list[StartedJob]:
        return [StartedJob(id=each, runner="r", start_unix_s=NOW_S - age_s) for each, age_s in self.ages_s.items()]

    def unfinished(self, ids: Collection[str]) -> set[str]:
        return (self.waiting | self.ages_s.keys()) & set(ids)

    def finished(self, limit: int) -> list[str]:
        return sorted(self.done)

    def resume(self, evaluation_id: str) -> None:
        del self.ages_s[evaluation_id]
        self.waiting.add(evaluation_id)

    def enqueue(self, evaluation_id: str) -> None:
        self.waiting |= {evaluation_id} - self.done

    def forget(self, ids: Collection[str]) -> None:
        self.done -= set(ids)
        self.waiting -= set(ids)


def recover(table: Table, queue: Queue, folder: Path, held: Collection[str] = ()) -> Queue:
    stores: Any = (table, queue)
    Recovery(*stores, folder).run(held)
    return queue


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "ended"])
@pytest.mark.parametrize(
    ("used", "age_s", "resumed"),
    [(True, 99.0, False), (False, 99.0, True), (False, 1.0, False)],
    ids=["leased", "abandoned", "just started"],
)
def test_it_resumes_jobs_that_no_lease_holds(
    tmp_path: Path, *, is_open: bool, used: bool, age_s: float, resumed: bool
) -> None:
    table = Table({OPEN} if is_open else set(), {OPEN} if used else set())
    queue = recover(table, Queue(ages_s={OPEN: age_s}), tmp_path)
    assert queue.waiting == ({OPEN} if resumed else set())


def test_it_leaves_the_jobs_of_its_own_runner_after_the_machine_was_suspended(tmp_path: Path) -> None:
    queue = recover(Table({OPEN}), Queue(ages_s={OPEN: 9999.0}), tmp_path, held={OPEN})
    assert queue == Queue(ages_s={OPEN: 9999.0})


@pytest.mark.parametrize("queue", [Queue(), Queue(done={OPEN})], ids=["lost", "done"])
def test_it_enqueues_open_evaluations_that_the_queue_does_not_have(tmp_path: Path, queue: Queue) -> None:
    assert recover(Table({OPEN}), queue, tmp_path) == Queue(waiting={OPEN})


def test_it_leaves_the_queue_as_it_is_where_it_agrees(tmp_path: Path) -> None:
    queue = recover(Table({OPEN, YOUNG}, {YOUNG}), Queue({OPEN}, {YOUNG: 99.0}), tmp_path)
    assert queue == Queue({OPEN}, {YOUNG: 99.0})


def test_it_forgets_finished_jobs_of_ended_evaluations(tmp_path: Path) -> None:
    assert recover(Table(), Queue(done={ENDED}), tmp_path) == Queue()


def test_it_removes_old_files_of_ended_evaluations_and_nothing_else(tmp_path: Path) -> None:
    for name in (ENDED, OPEN, YOUNG, "references", "thesis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        if name != YOUNG:
            os.utime(tmp_path / name, (1, 1))
    recover(Table({OPEN}), Queue(), tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {OPEN, YOUNG, "references", "thesis"}


def test_it_removes_references_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a" * 32, "papers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(100))
    limit_references(tmp_path, 10, ())
    assert [each.name for each in tmp_path.iterdir()] == ["papers"]


# --- Heartbeats -------------------------------------------------------------------------------------------------------


class Renewals:
    """A lease store in which the leases with these tokens are valid."""

    def __init__(self, valid: str) -> None:
        self.valid, self.renewed = set(valid), set[str]()

    def renew(self, leases: Collection[Lease]) -> set[str]:
        self.renewed |= {each.token for each in leases}
        return self.valid


async def beat(valid: str, *runs: tuple[str, bool]) -> tuple[list[bool], set[str]]:
    """Beat once with runs of one evaluation, each a token and whether it is ending; return which were cancelled."""
    store: Any = Renewals(valid)
    heartbeat = Heartbeat(store)
    tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in runs]
    for task, (token, is_ending) in zip(tasks, runs, strict=True):
        heartbeat.runs.add(Run(task, replace(LEASE, token=token), is_ending))
    await heartbeat.beat()
    cancelled = [bool(each.cancelling()) for each in tasks]
    for each in tasks:
        each.cancel()
    return cancelled, store.renewed


async def test_a_lost_lease_cancels_its_own_run_and_no_later_one_of_the_same_evaluation() -> None:
    cancelled, _ = await beat("b", ("a", False), ("b", False))
    assert cancelled == [True, False]


async def test_the_lease_of_a_run_that_is_ending_is_renewed_until_the_end_is_stored() -> None:
    assert await beat("", ("a", True)) == ([False], {"a"})


# --- Full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> str:
    """SQLite's message about a full disk."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as error:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    return str(error.value)


def test_it_tells_a_full_disk_from_other_errors(full: str) -> None:
    with pytest.raises(Failed, match="no space left for the database of evaluations; free some"):
        raise_if_full(JobsUnreachable(f"the database of evaluations does not answer: {full}"))
    raise_if_full(JobsUnreachable("connection refused"))


async def test_a_full_disk_fails_an_evaluation_once_there_is_space_to_store_that(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullStore:
        refusals = 3

        def write(self, *args: object, **kwargs: object) -> None:
            self.refusals -= 1
            if self.refusals > 0:
                raise JobsUnreachable(full)

    monkeypatch.setattr(leases, "_WRITE_RETRY_S", 0.0)
    store: Any = FullStore()
    reporter = LeaseReporter(store, LEASE, lambda work: work(), stopping=asyncio.Event(), on_end=lambda: None)
    with pytest.raises(Failed, match="no space left"):
        await reporter.report_progress(stage="drawing", done=1, total=2)
    await reporter.fail("no space left")
    assert store.refusals == 0
