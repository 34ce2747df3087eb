"""The table of evaluations, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import EvaluationNotDone, JobsUnreachable, Overloaded, SetupError, UnknownEvaluation
from service.evaluation.jobs.database import Database, evaluations, jobs_url, layout, metadata, queue_url
from service.evaluation.jobs.evaluations import Evaluations, Limits
from service.evaluation.jobs.leases import Lease, LeaseReporter, LeaseStore
from service.evaluation.pipeline.reporter import LeaseLost, Results
from service.evaluation.record import Record, State
from service.evaluation.results import GateOutcome, Metric, Panel, PanelResult, Verdict
from tests.contract.evaluation_runner import specification
from tests.databases import postgres

METRIC = Metric(name="fid", panel=Panel.REALISM, value=1.5, interval=(1.0, 2.0), better="lower", method="m")
RESULTS = Results(metrics=[METRIC], panels=[])
DAY_S = 86_400


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if request.param == "postgres":
            yield stack.enter_context(postgres())
        else:
            yield f"sqlite:///{tmp_path_factory.mktemp('store') / 'deep' / 'jobs.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Open and empty."""
    database = Database(jobs_url(url))
    database.open()
    with database.write() as connection:
        for table in set(metadata.tables.values()) - {layout}:
            connection.execute(sa.delete(table))
    yield database
    database.close()


@pytest.fixture
async def store(url: str, database: Database) -> AsyncIterator[Evaluations]:
    """Its queue stays closed: the table is under test."""
    store = Evaluations(url, Limits(queued_each=3, queued=5, keep_days=1.0, report_bytes=100))
    yield store
    await store.close()


@pytest.fixture
def leases(database: Database) -> LeaseStore:
    return LeaseStore(database, "runner-1")


async def create(store: Evaluations, subject: str = "ada", request_id: str = "", count: int = 100) -> Record:
    return await store.create(subject, specification(count), request_id=request_id, request_digest=f"d{count}")


def acquire(leases: LeaseStore, record: Record) -> Lease:
    lease = leases.acquire(record.id)
    assert lease is not None
    return lease


def reporter(leases: LeaseStore, lease: Lease) -> LeaseReporter:
    async def run_step(work: Callable[[], Awaitable[str]]) -> str:
        return await work()

    return LeaseReporter(leases, lease, run_step, stopping=asyncio.Event(), on_end=lambda: None)


async def report(leases: LeaseStore, lease: Lease, done: int, stage: str = "drawing", reason: str = "") -> None:
    await reporter(leases, lease).report_progress(stage=stage, done=done, total=9, reason=reason)


async def succeed(leases: LeaseStore, record: Record, bundle: bytes = b"report") -> None:
    await reporter(leases, acquire(leases, record)).succeed(RESULTS, [], bundle)


def age(database: Database, record: Record, seconds: float) -> None:
    older = {name: evaluations.c[name] - seconds for name in ("create_unix_s", "end_unix_s", "update_unix_s")}
    with database.write() as connection:
        connection.execute(sa.update(evaluations).where(evaluations.c.id == record.id).values(**older))


# --- What callers see -------------------------------------------------------------------------------------------------


async def test_it_returns_what_was_created(store: Evaluations) -> None:
    created = await create(store)
    assert created.state is State.QUEUED
    assert created.specification == specification(100)
    assert await store.get("ada", created.id) == created


async def test_it_returns_the_earlier_evaluation_of_a_request_id(store: Evaluations) -> None:
    first = await create(store, request_id="r1")
    again = await create(store, request_id="r1", count=200)
    assert (again.id, again.request_digest) == (first.id, "d100")


async def test_subjects_may_use_the_same_request_id(store: Evaluations) -> None:
    assert (await create(store, "ada", "r1")).id != (await create(store, "bob", "r1")).id


async def test_it_hides_the_evaluations_of_others(store: Evaluations) -> None:
    created = await create(store)
    for method in (store.get, store.cancel, store.delete, store.report):
        with pytest.raises(UnknownEvaluation, match=created.id):
            await method("bob", created.id)
    assert (await store.get("ada", created.id)).state is State.QUEUED


async def test_it_lists_newest_first_after_an_id(store: Evaluations) -> None:
    ids = [(await create(store)).id for _ in range(3)]
    every = await store.list("ada")
    rest = await store.list("ada", after=every[0].id, limit=1)
    assert [each.id for each in every] == sorted(ids, reverse=True)
    assert [each.id for each in rest] == [every[1].id]


async def test_it_filters_a_list_and_leaves_metrics_out(store: Evaluations, leases: LeaseStore) -> None:
    done, _ = await create(store), await create(store)
    outcome = GateOutcome(gate="fid < 2", passed=True, actual=1.5)
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.LIKE_REAL, sentence="like real")
    results = replace(RESULTS, panels=[panel])
    await reporter(leases, acquire(leases, done)).succeed(results, [outcome], b"report")
    found = await store.list("ada", states=(State.SUCCEEDED,), model="mixer")
    assert [each.id for each in found] == [done.id]
    assert (found[0].metrics, found[0].panels, found[0].gates) == ((), (panel,), (outcome,))
    assert (await store.get("ada", done.id)).metrics == (METRIC,)
    assert await store.list("ada", model="other") == []


@pytest.mark.parametrize(
    ("subjects", "message"), [(["ada"] * 4, "of yours"), (["ada", "bob", "cy"] * 2, "5 evaluations")]
)
async def test_it_refuses_more_than_may_be_queued(store: Evaluations, subjects: list[str], message: str) -> None:
    for each in subjects[:-1]:
        await create(store, each)
    with pytest.raises(Overloaded, match=message) as refusal:
        await create(store, subjects[-1])
    assert refusal.value.retry_after_s > 0


async def test_a_cancelled_evaluation_cannot_succeed(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    lease = acquire(leases, created)
    assert (await store.cancel("ada", created.id)).state is State.CANCELLED
    with pytest.raises(LeaseLost):
        await reporter(leases, lease).succeed(RESULTS, [], b"late")
    with pytest.raises(LeaseLost):
        await report(leases, lease, 1)
    assert leases.acquire(created.id) is None
    assert (await store.get("ada", created.id)).state is State.CANCELLED
    with pytest.raises(EvaluationNotDone, match="cancelled"):
        await store.report("ada", created.id)


async def test_cancelling_leaves_an_ended_evaluation_as_it_is(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    await succeed(leases, created)
    assert (await store.cancel("ada", created.id)).state is State.SUCCEEDED


async def test_it_keeps_the_report(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    await succeed(leases, created, b"a report")
    found = await store.get("ada", created.id)
    assert await store.report("ada", created.id) == b"a report"
    assert found.report_bytes == 8
    assert found.expire_unix_s - found.end_unix_s == pytest.approx(DAY_S)


async def test_a_deleted_evaluation_is_gone(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    lease = acquire(leases, created)
    await store.delete("ada", created.id)
    with pytest.raises(LeaseLost):
        await reporter(leases, lease).report_results(RESULTS)
    with pytest.raises(UnknownEvaluation, match=created.id):
        await store.get("ada", created.id)


async def test_it_hides_and_removes_expired_evaluations(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    created = await create(store)
    await succeed(leases, created)
    age(database, created, 2 * DAY_S)
    with pytest.raises(UnknownEvaluation):
        await store.get("ada", created.id)
    assert await store.list("ada") == []
    assert await store.tidy() == [created.id]


async def test_the_request_id_of_an_expired_evaluation_can_be_used_again(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    old = await create(store, request_id="r1")
    await succeed(leases, old)
    age(database, old, 2 * DAY_S)
    new = await create(store, request_id="r1")
    assert new.id != old.id
    assert new.state is State.QUEUED
    assert (await store.usage()).report_bytes == 0


@pytest.mark.parametrize("odd", ["a\0b", "\ud800", "'; --", "A" * 27, "0" * 28, ""])
async def test_an_id_of_another_form_is_unknown(store: Evaluations, odd: str) -> None:
    for method in (store.get, store.cancel, store.delete, store.report):
        with pytest.raises(UnknownEvaluation):
            await method("ada", odd)


async def test_no_evaluation_is_of_a_model_with_an_impossible_name(store: Evaluations) -> None:
    await create(store)
    assert await store.list("ada", model="mixer\0") == []


async def test_it_removes_the_oldest_reports_beyond_the_limit(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    created = [await create(store) for _ in range(3)]
    for number, each in enumerate(created):
        await succeed(leases, each, bytes(60))
        age(database, each, 100.0 - number)
    assert sorted(await store.tidy()) == sorted(each.id for each in created[:2])
    assert (await store.usage()).report_bytes == 60


async def test_it_counts_usage(store: Evaluations, leases: LeaseStore, database: Database) -> None:
    await succeed(leases, await create(store))
    age(database, await create(store, "bob"), 50.0)
    usage = await store.usage()
    assert usage.states[State.QUEUED] == 1
    assert usage.states[State.SUCCEEDED] == 1
    assert usage.states[State.FAILED] == 0
    assert usage.report_bytes == 6
    assert usage.oldest_queued_s == pytest.approx(50, abs=5)


async def test_it_shows_an_evaluation_of_another_version(store: Evaluations, database: Database) -> None:
    created = await create(store)
    with database.write() as connection:
        connection.execute(sa.update(evaluations).values(specification=json.dumps({"format": 99, "new": 1})))
    found = await store.get("ada", created.id)
    assert (found.specification.format, found.specification.model.name) == (99, "mixer")


# --- Leases -----------------------------------------------------------------------------------------------------------


async def test_only_the_latest_lease_may_write(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    first = acquire(leases, created)
    second = acquire(leases, created)
    with pytest.raises(LeaseLost):
        await reporter(leases, first).fail("late")
    await report(leases, second, 1)
    assert (await store.get("ada", created.id)).progress.done == 1


async def test_success_completes_the_progress(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    lease = acquire(leases, created)
    await report(leases, lease, 8, "writing the report")
    await reporter(leases, lease).succeed(RESULTS, [], b"report")
    progress = (await store.get("ada", created.id)).progress
    assert (progress.done, progress.total) == (9, 9)


async def test_progress_never_goes_back(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    await report(leases, acquire(leases, created), 7, "comparing")
    await report(leases, acquire(leases, created), 1, "drawing")
    progress = (await store.get("ada", created.id)).progress
    assert (progress.stage, progress.done) == ("comparing", 7)


async def test_attempts_without_progress_are_counted(store: Evaluations, leases: LeaseStore) -> None:
    created = await create(store)
    for _ in range(3):
        lease = acquire(leases, created)
    assert lease.attempts == 3
    await report(leases, lease, 1)
    lease = acquire(leases, created)
    assert lease.attempts == 2
    leases.release(lease)
    assert acquire(leases, created).attempts == 1


@pytest.mark.parametrize("odd", ["a \0", "file \udcff"], ids=["nul", "surrogate"])
async def test_a_reason_may_hold_any_characters(store: Evaluations, leases: LeaseStore, odd: str) -> None:
    created = await create(store)
    lease = acquire(leases, created)
    await report(leases, lease, 1, reason=odd)
    await reporter(leases, lease).fail(odd)
    assert (await store.get("ada", created.id)).reason == odd[:-1] + "?"


async def test_a_lease_is_valid_while_it_is_renewed(store: Evaluations, leases: LeaseStore, database: Database) -> None:
    created = await create(store)
    lease = acquire(leases, created)
    assert (leases.in_use(), leases.without_lease(9)) == ({created.id}, [])
    age(database, created, 11)
    assert (leases.in_use(), leases.without_lease(9)) == (set(), [created.id])
    assert leases.renew([lease]) == {lease.token}
    assert leases.in_use() == {created.id}
    leases.release(lease)
    assert (leases.in_use(), leases.renew([lease])) == (set(), set())


async def test_an_evaluation_that_was_just_created_is_left_to_its_gateway(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    """Queued a second time, it might lose the job that a runner just took."""
    created = await create(store)
    assert leases.without_lease(9) == []
    age(database, created, 6)
    assert leases.without_lease(9) == [created.id]


async def test_running_evaluations_without_a_lease_come_before_queued_ones(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    first, second, third = created = [await create(store) for _ in range(3)]
    for each in created:
        age(database, each, 6)
    leases.release(acquire(leases, third))
    assert leases.without_lease(9) == [third.id, first.id, second.id]
    assert leases.without_lease(2) == [third.id, first.id]
    assert leases.open_among([first.id, "gone"]) == {first.id}


async def test_an_evaluation_that_just_ended_is_in_use(
    store: Evaluations, leases: LeaseStore, database: Database
) -> None:
    """Its run finishes a moment later."""
    created = await create(store)
    await succeed(leases, created)
    assert (leases.in_use(), leases.without_lease(9)) == ({created.id}, [])
    age(database, created, 11)
    assert (leases.in_use(), leases.without_lease(9)) == (set(), [])


# --- Opening ----------------------------------------------------------------------------------------------------------


async def test_it_upgrades_layout_1(store: Evaluations, database: Database) -> None:
    created = await create(store)
    with database.write() as connection:
        for statement in (
            "ALTER TABLE fount_evaluations RENAME COLUMN lease TO owner",
            "ALTER TABLE fount_evaluations ADD COLUMN enqueued BOOLEAN NOT NULL DEFAULT FALSE",
            "CREATE TABLE fount_runners (id TEXT)",
            "UPDATE fount_layout SET version = 1",
        ):
            connection.exec_driver_sql(statement)
    database.open()
    assert (await store.get("ada", created.id)).state is State.QUEUED
    assert (await create(store)).state is State.QUEUED


def test_it_refuses_an_unknown_layout(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.update(layout).values(version=3))
    try:
        with pytest.raises(SetupError, match=r"layout 3 .* reads 2; use the version that created it"):
            database.open()
    finally:
        with database.write() as connection:
            connection.execute(sa.update(layout).values(version=2))


def test_it_refuses_tables_that_are_not_its_own(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE fount_reports (id TEXT)")
    connection.close()
    with pytest.raises(SetupError, match="fount_reports that Fount did not create"):
        Database(jobs_url(f"sqlite:///{tmp_path / 'other.db'}")).open()


def test_it_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"no database at all, and longer than a header of one" * 50)
    with pytest.raises(SetupError, match=r"not a database; check --jobs"):
        Database(jobs_url(f"sqlite:///{tmp_path / 'no.db'}")).open()


async def test_it_reports_a_server_that_does_not_answer() -> None:
    store = Evaluations("postgresql://ada:secret@127.0.0.1:1/fount")
    with pytest.raises(SetupError, match="check --jobs") as refusal:
        await store.start()
    assert "secret" not in str(refusal.value)
    with pytest.raises(JobsUnreachable, match="does not answer"):
        await store.usage()


@pytest.mark.parametrize("text", ["", "mysql://a/b", "sqlite://", "sqlite:///:memory:", "postgresql://host", "no url"])
def test_it_refuses_other_urls_and_names_those_it_takes(text: str) -> None:
    with pytest.raises(SetupError, match=r"sqlite:///PATH or postgresql://"):
        jobs_url(text)


def test_the_queue_is_a_second_file_or_in_the_same_database() -> None:
    assert queue_url(jobs_url("sqlite:////a/jobs.db")) == "sqlite:////a/jobs-queue.db"
    assert queue_url(jobs_url("postgresql://u:p@h/d")) == "postgresql://u:p@h/d"
