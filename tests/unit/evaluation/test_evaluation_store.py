"""The table of evaluations, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import EvaluationNotDone, JobsUnreachable, Overloaded, SetupError, UnknownEvaluation
from service.evaluation.jobs.database import Database, evaluations, jobs_url, layout, metadata, queue_url, runners
from service.evaluation.jobs.leases import Turn, Turns
from service.evaluation.jobs.store import EvaluationStore, Limits
from service.evaluation.record import Record, State
from service.evaluation.results import GateOutcome, Metric, Panel, PanelResult, Verdict
from tests.contract.evaluating import specification
from tests.databases import postgres

METRIC = Metric(name="fid", panel=Panel.REALISM, value=1.5, interval=(1.0, 2.0), better="lower", method="as ever")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with contextlib.ExitStack() as stack:
        if request.param == "postgres":
            url = stack.enter_context(postgres())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'deep' / 'jobs.db'}"
        database = Database(jobs_url(url))
        database.open()
        stack.callback(database.close)
        yield database


@pytest.fixture
def database(opened: Database) -> Database:
    with opened.write() as connection:
        for table in set(metadata.tables.values()) - {layout}:
            connection.execute(sa.delete(table))
    return opened


@pytest.fixture
def store(database: Database) -> EvaluationStore:
    return EvaluationStore(database, Limits(queued_each=3, queued=5, keep_days=1.0, report_bytes=100))


@pytest.fixture
def turns(database: Database) -> Turns:
    return Turns(database, "runner-1")


def create(store: EvaluationStore, subject: str = "ada", request_id: str = "") -> Record:
    return store.create(subject, specification(100), request_id=request_id, request_digest="d")[0]


def take(turns: Turns, record: Record) -> Turn:
    turn = turns.take(record.id)
    assert turn is not None
    return turn


def succeed(turns: Turns, record: Record, bundle: bytes = b"report") -> None:
    assert turns.succeed(take(turns, record), metrics=[METRIC], panels=[], gates=[], bundle=bundle)


def age(database: Database, record: Record, seconds: float) -> None:
    older = {name: evaluations.c[name] - seconds for name in ("create_unix_s", "end_unix_s", "update_unix_s")}
    with database.write() as connection:
        connection.execute(sa.update(evaluations).where(evaluations.c.id == record.id).values(**older))


def test_it_gives_back_what_was_asked_for(store: EvaluationStore) -> None:
    made = create(store)
    assert made.state is State.QUEUED
    assert made.specification == specification(100)
    assert store.get("ada", made.id) == made


def test_it_returns_the_earlier_one_of_a_request_id(store: EvaluationStore) -> None:
    first, is_new = store.create("ada", specification(100), request_id="r1", request_digest="d")
    again, is_new_again = store.create("ada", specification(200), request_id="r1", request_digest="e")
    assert (is_new, is_new_again) == (True, False)
    assert again.id == first.id
    assert again.request_digest == "d"


def test_it_keeps_request_ids_of_others_apart(store: EvaluationStore) -> None:
    assert create(store, "ada", "r1").id != create(store, "bob", "r1").id


def test_it_hides_what_is_someone_elses(store: EvaluationStore) -> None:
    made = create(store)
    for ask in (store.get, store.cancel, store.delete, store.report):
        with pytest.raises(UnknownEvaluation, match=made.id):
            ask("bob", made.id)
    assert store.get("ada", made.id).state is State.QUEUED


def test_it_lists_newest_first_from_behind_one_on(store: EvaluationStore) -> None:
    ids = [create(store).id for _ in range(3)]
    every = store.page("ada", states=(), model="", after="", limit=100)
    rest = store.page("ada", states=(), model="", after=every[0].id, limit=1)
    assert [each.id for each in every] == sorted(ids, reverse=True)
    assert [each.id for each in rest] == [every[1].id]


def test_it_lists_what_is_wanted_without_metrics(store: EvaluationStore, turns: Turns) -> None:
    done, _ = create(store), create(store)
    outcome = GateOutcome(gate="fid < 2", passed=True, actual=1.5)
    panel = PanelResult(panel=Panel.REALISM, verdict=Verdict.LIKE_REAL, sentence="like real")
    assert turns.succeed(take(turns, done), metrics=[METRIC], panels=[panel], gates=[outcome], bundle=b"report")
    found = store.page("ada", states=(State.SUCCEEDED,), model="mixer", after="", limit=10)
    assert [each.id for each in found] == [done.id]
    assert (found[0].metrics, found[0].panels, found[0].gates) == ((), (panel,), (outcome,))
    assert store.get("ada", done.id).metrics == (METRIC,)
    assert store.page("ada", states=(), model="other", after="", limit=10) == []


@pytest.mark.parametrize(("subjects", "told"), [(["ada"] * 4, "of yours"), (["ada", "bob", "cy"] * 2, "5 evaluations")])
def test_it_refuses_more_than_may_be_queued(store: EvaluationStore, subjects: list[str], told: str) -> None:
    for each in subjects[:-1]:
        create(store, each)
    with pytest.raises(Overloaded, match=told) as refusal:
        create(store, subjects[-1])
    assert refusal.value.retry_after_s > 0


def test_it_does_not_let_what_was_cancelled_succeed(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    turn = take(turns, made)
    assert store.cancel("ada", made.id).state is State.CANCELLED
    assert not turns.succeed(turn, metrics=[], panels=[], gates=[], bundle=b"late")
    assert not turns.tell(turn, stage="late", done=1, total=2, reason="")
    assert turns.take(made.id) is None
    assert store.get("ada", made.id).state is State.CANCELLED
    with pytest.raises(EvaluationNotDone, match="cancelled"):
        store.report("ada", made.id)


def test_it_leaves_what_has_ended_as_it_is_when_cancelled(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    succeed(turns, made)
    assert store.cancel("ada", made.id).state is State.SUCCEEDED


def test_it_lets_only_the_latest_turn_write(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    first = take(turns, made)
    second = take(turns, made)
    assert not turns.fail(first, "late")
    assert turns.tell(second, stage="drawing", done=1, total=9, reason="")
    assert store.get("ada", made.id).progress.done == 1


def test_it_keeps_the_report_of_what_succeeded(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    succeed(turns, made, b"a report")
    found = store.get("ada", made.id)
    assert store.report("ada", made.id) == b"a report"
    assert found.report_bytes == 8
    assert found.expire_unix_s - found.end_unix_s == pytest.approx(86_400)


def test_it_forgets_what_was_deleted(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    turn = take(turns, made)
    store.delete("ada", made.id)
    assert not turns.partial(turn, [METRIC], [])
    with pytest.raises(UnknownEvaluation, match=made.id):
        store.get("ada", made.id)


def test_it_is_done_once_it_has_succeeded(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    turn = take(turns, made)
    turns.tell(turn, stage="writing the report", done=8, total=9, reason="")
    assert turns.succeed(turn, metrics=[METRIC], panels=[], gates=[], bundle=b"report")
    progress = store.get("ada", made.id).progress
    assert (progress.done, progress.total) == (9, 9)


def test_it_never_says_less_progress_than_before(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    turns.tell(take(turns, made), stage="judging", done=7, total=9, reason="")
    turns.tell(take(turns, made), stage="drawing", done=1, total=9, reason="")
    progress = store.get("ada", made.id).progress
    assert (progress.stage, progress.done) == ("judging", 7)


def test_it_counts_turns_that_got_no_further(store: EvaluationStore, turns: Turns) -> None:
    made = create(store)
    for _ in range(3):
        turn = take(turns, made)
    assert turn.attempts == 3
    turns.tell(turn, stage="drawing", done=1, total=9, reason="")
    assert take(turns, made).attempts == 2


def test_it_hides_and_removes_what_has_expired(store: EvaluationStore, turns: Turns, database: Database) -> None:
    made = create(store)
    succeed(turns, made)
    age(database, made, 2 * 86_400)
    with pytest.raises(UnknownEvaluation):
        store.get("ada", made.id)
    assert store.page("ada", states=(), model="", after="", limit=9) == []
    assert store.tidy() == [made.id]


def test_it_makes_anew_what_a_request_id_made_that_has_expired(
    store: EvaluationStore, turns: Turns, database: Database
) -> None:
    old = create(store, request_id="r1")
    succeed(turns, old)
    age(database, old, 2 * 86_400)
    new, is_new = store.create("ada", specification(100), request_id="r1", request_digest="d")
    assert (is_new, new.state) == (True, State.QUEUED)
    assert store.usage().report_bytes == 0


@pytest.mark.parametrize("odd", ["a\0b", "\ud800", "'; --", "A" * 27, "0" * 28, ""])
def test_it_knows_no_evaluation_of_an_id_it_never_gave(store: EvaluationStore, odd: str) -> None:
    for ask in (store.get, store.cancel, store.delete, store.report):
        with pytest.raises(UnknownEvaluation):
            ask("ada", odd)


def test_it_lists_nothing_of_a_model_no_name_can_be(store: EvaluationStore) -> None:
    create(store)
    assert store.page("ada", states=(), model="mixer\0", after="", limit=9) == []


@pytest.mark.parametrize("odd", ["a \0", "file \udcff"], ids=["nul", "surrogate"])
def test_it_keeps_whatever_reason_there_is(store: EvaluationStore, turns: Turns, odd: str) -> None:
    made = create(store)
    turn = take(turns, made)
    assert turns.tell(turn, stage="drawing", done=1, total=2, reason=odd)
    assert turns.fail(turn, odd)
    assert store.get("ada", made.id).reason == odd[:-1] + "?"


def test_it_removes_the_oldest_reports_beyond_their_room(
    store: EvaluationStore, turns: Turns, database: Database
) -> None:
    made = [create(store) for _ in range(3)]
    for number, each in enumerate(made):
        succeed(turns, each, bytes(60))
        age(database, each, 100.0 - number)
    assert sorted(store.tidy()) == sorted(each.id for each in made[:2])
    assert store.usage().report_bytes == 60


def test_it_tells_what_evaluations_take(store: EvaluationStore, turns: Turns, database: Database) -> None:
    succeed(turns, create(store))
    age(database, create(store, "bob"), 50.0)
    usage = store.usage()
    assert usage.states[State.QUEUED] == 1
    assert usage.states[State.SUCCEEDED] == 1
    assert usage.states[State.FAILED] == 0
    assert usage.report_bytes == 6
    assert usage.oldest_queued_s == pytest.approx(50, abs=5)


def test_it_knows_which_runners_are_alive(turns: Turns, database: Database) -> None:
    turns.beat(())
    Turns(database, "runner-2").beat(())
    with database.write() as connection:
        old = sa.update(runners).where(runners.c.id == "runner-2").values(beat_unix_s=runners.c.beat_unix_s - 11)
        connection.execute(old)
    assert turns.alive() == {"runner-1"}
    turns.leave()
    assert turns.alive() == set()


def test_it_finds_what_was_left_behind(store: EvaluationStore, turns: Turns, database: Database) -> None:
    lost, fresh, queued, silent = create(store), create(store), create(store), create(store, "bob")
    store.mark_enqueued(queued.id)
    turn = take(turns, silent)
    for each in (lost, silent):
        age(database, each, 20.0)
    assert turns.not_enqueued(10) == [lost.id]
    assert turns.oldest_queued(10) == [queued.id]
    assert turns.silent() == [silent.id]
    turns.beat([turn])
    assert turns.silent() == []
    assert fresh.id in turns.open_among([fresh.id, "gone"])


def test_it_shows_what_another_version_asked_for(store: EvaluationStore, database: Database) -> None:
    made = create(store)
    with database.write() as connection:
        connection.execute(sa.update(evaluations).values(specification=json.dumps({"format": 99, "new": 1})))
    found = store.get("ada", made.id)
    assert (found.specification.format, found.specification.model.name) == (99, "mixer")


def test_it_refuses_another_layout(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.update(layout).values(version=2))
    try:
        with pytest.raises(SetupError, match=r"layout 2 .* reads 1; use the Fount that made it"):
            database.open()
    finally:
        with database.write() as connection:
            connection.execute(sa.update(layout).values(version=1))


def test_it_refuses_tables_that_are_not_its_own(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE fount_runners (id TEXT)")
    connection.close()
    with pytest.raises(SetupError, match="fount_runners that are not Fount's"):
        Database(jobs_url(f"sqlite:///{tmp_path / 'other.db'}")).open()


def test_it_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"no database at all, and longer than a header of one" * 50)
    with pytest.raises(SetupError, match=r"not a database; check --jobs"):
        Database(jobs_url(f"sqlite:///{tmp_path / 'no.db'}")).open()


def test_it_says_when_nobody_answers() -> None:
    database = Database(jobs_url("postgresql://ada:secret@127.0.0.1:1/fount"))
    with pytest.raises(SetupError, match="check --jobs") as refusal:
        database.open()
    assert "secret" not in str(refusal.value)
    with pytest.raises(JobsUnreachable, match="does not answer"):
        EvaluationStore(database, Limits()).usage()


@pytest.mark.parametrize("text", ["", "mysql://a/b", "sqlite://", "sqlite:///:memory:", "postgresql://host", "no url"])
def test_it_names_the_urls_it_takes(text: str) -> None:
    with pytest.raises(SetupError, match=r"sqlite:///PATH or postgresql://"):
        jobs_url(text)


def test_it_keeps_the_queue_beside_the_table() -> None:
    assert queue_url(jobs_url("sqlite:////a/jobs.db")) == "sqlite:////a/jobs-queue.db"
    assert queue_url(jobs_url("postgresql://u:p@h/d")) == "postgresql://u:p@h/d"
