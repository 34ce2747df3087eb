"""Evaluations on a real queue: runners that come, go, die and take over, with workers that need no torch."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from service.cli.runner import end_with_parent
from service.cli.runner import runner as runner_command
from service.errors import JobsUnreachable, Overloaded
from service.evaluation.jobs.database import Database, jobs_url
from service.evaluation.jobs.database import evaluations as table
from service.evaluation.jobs.durable_evaluations import DurableEvaluations
from service.evaluation.jobs.memory import MemoryEvaluations
from service.evaluation.jobs.runner_process import PARENT, RunnerProcesses
from service.evaluation.jobs.store import EvaluationStore, Limits
from service.evaluation.record import Evaluations, Record, State
from service.evaluation.results import Panel
from service.evaluation.specification import Specification
from tests.contract.evaluating import FakeWorkers, pipeline, specification
from tests.databases import postgres

QUICK = (Panel.LABEL_FIDELITY,)
KILLS = int(os.environ.get("FOUNT_TEST_KILLS", "20"))


class RunnerProcess:
    """A runner of `tests.contract.evaluating`, ready when it was made."""

    def __init__(self, url: str, folder: Path, delay_s: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.contract.evaluating", url, str(folder)]
        environment = os.environ | {"FAKE_DELAY_S": str(delay_s), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if said != "ready\n":
            self.kill()
        assert said == "ready\n"

    def end(self) -> int:
        self.process.terminate()
        return self._wait()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


Begin = Callable[..., RunnerProcess]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins runners, as `RunnerProcess` does, that do not outlive the test however it ends."""
    with ExitStack() as stack:

        def begin(url: str, folder: Path, delay_s: float = 0.0) -> RunnerProcess:
            running = RunnerProcess(url, folder, delay_s)
            stack.callback(running.kill)
            return running

        yield begin


async def look_until(
    evaluations: Evaluations, made: Record, seen: Callable[[Record], bool], most_s: float = 60.0
) -> Record:
    async with asyncio.timeout(most_s):
        while not seen(found := await evaluations.get("ada", made.id)):
            await asyncio.sleep(0.05)
    return found


async def ended(evaluations: Evaluations, made: Record, most_s: float = 60.0) -> Record:
    return await look_until(evaluations, made, lambda found: found.state.ended, most_s)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.db'}"


@pytest.fixture
async def durable(url: str) -> AsyncIterator[DurableEvaluations]:
    found = DurableEvaluations(url)
    await found.start()
    yield found
    await found.close()


@pytest.fixture(scope="module")
def runner(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    running = RunnerProcess(url, tmp_path_factory.mktemp("work"), delay_s=0.02)
    try:
        yield running
        assert running.end() == 0
    finally:
        running.kill()


# --- The double -------------------------------------------------------------------------------------------------------


async def test_it_runs_in_memory_as_on_a_queue(
    tmp_path: Path, durable: DurableEvaluations, runner: RunnerProcess
) -> None:
    memory = MemoryEvaluations(pipeline(tmp_path).run)
    reports = []
    for each in (memory, durable):
        made = await each.create("ada", specification(100, panels=QUICK))
        found = await ended(each, made)
        assert found.state is State.SUCCEEDED
        assert found.progress.done == found.progress.total > 0
        reports.append(await each.report("ada", made.id))
    assert reports[0] == reports[1]
    await memory.close()


async def test_it_cancels_in_memory(tmp_path: Path) -> None:
    memory = MemoryEvaluations(pipeline(tmp_path, FakeWorkers(delay_s=0.05)).run)
    made = await memory.create("ada", specification(100, panels=QUICK))
    await look_until(memory, made, lambda found: found.progress.done > 1)
    assert (await memory.cancel("ada", made.id)).state is State.CANCELLED
    await memory.close()
    assert (await memory.get("ada", made.id)).state is State.CANCELLED


# --- One runner -------------------------------------------------------------------------------------------------------


async def test_it_tells_how_far_it_is(durable: DurableEvaluations, runner: RunnerProcess) -> None:
    made = await durable.create("ada", specification(100, panels=QUICK, gates=("label_agreement > 0.5",)))
    under_way = await look_until(durable, made, lambda found: found.progress.done > 0)
    found = await ended(durable, made)
    assert under_way.state is State.RUNNING
    assert under_way.progress.stage
    assert found.state is State.SUCCEEDED
    assert [each.passed for each in found.gates] == [True]
    assert found.create_unix_s <= found.start_unix_s <= found.end_unix_s
    assert found.report_bytes == len(await durable.report("ada", made.id))


async def test_it_gives_a_repeated_request_what_there_is(durable: DurableEvaluations, runner: RunnerProcess) -> None:
    first = await durable.create("ada", specification(100, panels=QUICK), request_id="r1", request_digest="d")
    await ended(durable, first)
    again = await durable.create("ada", specification(100, panels=QUICK), request_id="r1", request_digest="d")
    assert again == await durable.get("ada", first.id)


@pytest.mark.parametrize("done", [0, 1, 5, 12])
async def test_it_stops_what_is_cancelled(durable: DurableEvaluations, runner: RunnerProcess, done: int) -> None:
    made = await durable.create("ada", specification(300, panels=(Panel.MEMORISATION, *QUICK)))
    await look_until(durable, made, lambda found: found.progress.done >= done)
    assert (await durable.cancel("ada", made.id)).state is State.CANCELLED
    following = await durable.create("ada", specification(100, panels=QUICK))
    assert (await ended(durable, following)).state is State.SUCCEEDED
    assert (await durable.get("ada", made.id)).state is State.CANCELLED


async def test_it_does_not_begin_what_was_deleted(durable: DurableEvaluations, runner: RunnerProcess) -> None:
    made = await durable.create("ada", specification(300, panels=QUICK))
    await durable.delete("ada", made.id)
    following = await durable.create("ada", specification(100, panels=QUICK))
    assert (await ended(durable, following)).state is State.SUCCEEDED
    assert made.id not in {each.id for each in await durable.list("ada")}


async def test_it_refuses_what_another_version_asked_for(
    durable: DurableEvaluations, runner: RunnerProcess, url: str
) -> None:
    asked = replace(specification(100, panels=QUICK), format=0)
    found = await ended(durable, await durable.create("ada", asked))
    assert (found.state, found.reason) == (State.FAILED, "asked for by another version of Fount; ask again")


@pytest.mark.slow
async def test_it_takes_up_what_a_gateway_left_half_queued(
    durable: DurableEvaluations, runner: RunnerProcess, url: str
) -> None:
    database = Database(jobs_url(url))
    asked = specification(100, panels=QUICK)
    made, _ = EvaluationStore(database, Limits()).create("ada", asked, request_id="", request_digest="")
    database.close()
    assert (await ended(durable, made)).state is State.SUCCEEDED


# --- Runners that go --------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_it_lets_go_when_it_is_told_to_end(tmp_path: Path, begin: Begin) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    durable = DurableEvaluations(url)
    await durable.start()
    first = await asyncio.to_thread(begin, url, tmp_path / "a", 0.2)
    made = await durable.create("ada", specification(600, panels=QUICK))
    await look_until(durable, made, lambda found: found.progress.done > 0)
    began = time.monotonic()
    assert await asyncio.to_thread(first.end) == 0
    assert time.monotonic() - began < 10
    assert (await durable.get("ada", made.id)).reason == "waits for a runner"
    second = await asyncio.to_thread(begin, url, tmp_path / "b")
    assert (await ended(durable, made)).state is State.SUCCEEDED
    assert await asyncio.to_thread(second.end) == 0
    await durable.close()


async def undisturbed(folder: Path, asked: Specification) -> bytes:
    memory = MemoryEvaluations(pipeline(folder).run)
    made = await memory.create("ada", asked)
    await ended(memory, made)
    await memory.close()
    return await memory.report("ada", made.id)


@pytest.mark.slow
async def test_it_takes_over_from_a_dead_runner_within_30_s(tmp_path: Path, begin: Begin) -> None:
    url, asked = f"sqlite:///{tmp_path / 'jobs.db'}", specification(600, panels=QUICK)
    durable = DurableEvaluations(url)
    await durable.start()
    first = await asyncio.to_thread(begin, url, tmp_path / "a", 0.3)
    made = await durable.create("ada", asked)
    await look_until(durable, made, lambda found: found.progress.done > 2)
    second = await asyncio.to_thread(begin, url, tmp_path / "b")
    before = await durable.get("ada", made.id)
    await asyncio.to_thread(first.kill)
    began = time.monotonic()
    await look_until(durable, made, lambda found: found.progress.done > before.progress.done + 2 or found.state.ended)
    assert time.monotonic() - began < 30
    assert (await ended(durable, made)).state is State.SUCCEEDED
    assert await durable.report("ada", made.id) == await undisturbed(tmp_path / "c", asked)
    await asyncio.to_thread(second.end)
    await durable.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # twenty starts of a process, on a machine that may be busy
@pytest.mark.parametrize(("kind", "runners"), [("sqlite", 1), ("postgres", 2)])
async def test_it_gives_the_same_report_whatever_is_killed(
    kind: str, runners: int, tmp_path: Path, begin: Begin
) -> None:
    asked, chance = specification(600), random.Random(6)
    with ExitStack() as stack:
        url = stack.enter_context(postgres()) if kind == "postgres" else f"sqlite:///{tmp_path / 'jobs.db'}"
        durable = DurableEvaluations(url)
        await durable.start()

        def again(number: int) -> RunnerProcess:
            return begin(url, tmp_path / f"work-{number}", 0.1)

        running = [await asyncio.to_thread(again, number) for number in range(runners)]
        made = await durable.create("ada", asked)
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.0, 8.0))
            if (await durable.get("ada", made.id)).state.ended:
                made = await durable.create("ada", asked)  # there is more to kill
            victim = chance.randrange(runners)
            await asyncio.to_thread(running[victim].kill)
            running[victim] = await asyncio.to_thread(again, victim)
        found = await ended(durable, made, 180)
        assert (found.state, found.reason) == (State.SUCCEEDED, "")
        every = await durable.list("ada")
        assert {each.state for each in every} == {State.SUCCEEDED}
        reports = {await durable.report("ada", each.id) for each in every}
        assert reports == {await undisturbed(tmp_path / "undisturbed", asked)}
        for each in running:
            assert await asyncio.to_thread(each.end) == 0
        await durable.close()


@pytest.mark.slow
async def test_it_stops_in_the_middle_of_a_step_that_waits(tmp_path: Path, begin: Begin) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    durable = DurableEvaluations(url)
    await durable.start()
    running = await asyncio.to_thread(begin, url, tmp_path / "a", 600.0)
    made = await durable.create("ada", specification(100, panels=QUICK))
    await look_until(durable, made, lambda found: found.progress.stage == "drawing samples")
    await durable.cancel("ada", made.id)
    following = await durable.create("ada", specification(100, panels=QUICK))
    await look_until(durable, following, lambda found: found.state is State.RUNNING, 20)
    await asyncio.to_thread(running.kill)
    await durable.close()


@pytest.mark.slow
async def test_it_goes_on_when_the_database_is_back(tmp_path: Path, begin: Begin) -> None:
    asked = specification(600, panels=QUICK)
    with postgres() as url:
        durable = DurableEvaluations(url)
        await durable.start()
        running = await asyncio.to_thread(begin, url, tmp_path / "a", 0.2)
        made = await durable.create("ada", asked)
        for _ in range(4):
            await asyncio.sleep(1.5)
            await asyncio.to_thread(drop_connections, url)
        async with asyncio.timeout(90):
            while not (found := await patiently(durable, made)) or not found.state.ended:
                await asyncio.sleep(0.2)
        assert (found.state, found.reason) == (State.SUCCEEDED, "")
        assert await durable.report("ada", made.id) == await undisturbed(tmp_path / "b", asked)
        assert await asyncio.to_thread(running.end) == 0
        await durable.close()


def drop_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid != pg_backend_pid()"
        )


async def patiently(durable: DurableEvaluations, made: Record) -> Record | None:
    try:
        return await durable.get("ada", made.id)
    except JobsUnreachable:
        return None


@pytest.mark.slow
async def test_it_queues_a_thousand_and_refuses_one_more(tmp_path: Path, begin: Begin) -> None:
    durable = DurableEvaluations(f"sqlite:///{tmp_path / 'jobs.db'}", Limits(queued_each=1000))
    await durable.start()
    for _ in range(1000):
        await durable.create("ada", specification(100, panels=QUICK))
    with pytest.raises(Overloaded, match="1000 evaluations"):
        await durable.create("bob", specification(100, panels=QUICK))
    assert (await durable.usage()).states[State.QUEUED] == 1000
    running = await asyncio.to_thread(begin, str(durable_url(tmp_path)), tmp_path / "work")
    began = time.monotonic()
    async with asyncio.timeout(60):
        while not (await durable.usage()).states[State.SUCCEEDED]:
            await asyncio.sleep(0.1)
    assert time.monotonic() - began < 30
    assert await asyncio.to_thread(running.end) == 0
    await durable.close()


def durable_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.db'}"


@pytest.mark.slow
async def test_it_gives_up_on_what_kills_its_runners(
    durable: DurableEvaluations, url: str, runner: RunnerProcess
) -> None:
    database = Database(jobs_url(url))
    store = EvaluationStore(database, Limits())
    made, _ = store.create("ada", specification(100, panels=QUICK), request_id="", request_digest="")
    with database.write() as connection:
        connection.execute(sa.update(table).where(table.c.id == made.id).values(attempts=10, stage="gathering"))
    database.close()
    found = await ended(durable, made)
    assert found.state is State.FAILED
    assert "its runners died 10 times while gathering" in found.reason


# --- Child processes --------------------------------------------------------------------------------------------------


async def test_it_starts_runners_again_and_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@ $FOUNT_RUNNER_JOBS" >> {tmp_path}/log\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    processes = RunnerProcesses(1, ["--server", "here"], {"FOUNT_RUNNER_JOBS": "secret"})
    await processes.start()
    await seen(lambda: len(lines(tmp_path)) == 1)
    first = processes.pids
    os.kill(first[0], 9)
    await seen(lambda: len(lines(tmp_path)) == 2 and processes.pids not in ([], first))
    last = processes.pids[0]
    await processes.close()
    assert lines(tmp_path) == ["-m fount runner --server here secret"] * 2
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


async def test_it_starts_a_runner_again_that_could_not_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr("service.evaluation.jobs.runner_process._FIRST_PAUSE_S", 0.05)
    processes = RunnerProcesses(1, [], {})
    await processes.start()
    await asyncio.sleep(0.2)
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    await seen(lambda: len(processes.pids) == 1)
    await processes.close()


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


async def seen(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)


def test_the_command_says_when_the_database_is_not_there(tmp_path: Path) -> None:
    jobs = "postgresql://u:secret@127.0.0.1:1/x"
    result = CliRunner().invoke(runner_command, ["--jobs", jobs, "--work-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "evaluations cannot be kept in postgresql" in result.output
    assert "secret" not in result.output


def test_the_command_says_when_its_folder_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    args = ["--jobs", f"sqlite:///{tmp_path / 'jobs.db'}", "--work-dir", str(tmp_path / "file" / "work")]
    result = CliRunner().invoke(runner_command, args)
    assert result.exit_code == 1
    assert "cannot be made" in result.output
    assert "--work-dir" in result.output


async def test_a_runner_ends_with_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str | None) -> None:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", no_library)
    monkeypatch.setenv(PARENT, str(os.getpid()))  # which is not the parent of this process
    stop = asyncio.Event()
    await asyncio.wait_for(end_with_parent(stop), 5)
    assert stop.is_set()


@pytest.mark.slow
def test_the_command_ends_by_a_signal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    command = [sys.executable, "-m", "fount", "runner", "--jobs", url, "--work-dir", str(tmp_path / "work")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
    finally:
        process.terminate()
        status = process.wait(20)
        process.stdout.close()
    assert said.startswith("Fount runs evaluations as ")
    assert status == 0
