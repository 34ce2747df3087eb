"""Evaluations on a real queue: runners that start, stop, die and take over, with workers that need no torch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from service.cli.runner import runner as runner_command
from service.cli.runner import stop_with_parent
from service.errors import JobsUnreachable, Overloaded
from service.evaluation.jobs.database import Database, jobs_url
from service.evaluation.jobs.database import evaluations as table
from service.evaluation.jobs.evaluations import Evaluations, Limits
from service.evaluation.jobs.hosting import PARENT_VARIABLE, RunnerProcesses
from service.evaluation.jobs.queue import JobQueue
from service.evaluation.record import Record, State
from service.evaluation.results import Panel
from service.evaluation.specification import Specification
from tests.contract.evaluation_runner import pipeline, specification
from tests.contract.memory_evaluations import MemoryEvaluations
from tests.databases import postgres

QUICK = (Panel.LABEL_FIDELITY,)
KILLS = int(os.environ.get("FOUNT_TEST_KILLS", "20"))


class RunnerProcess:
    """A runner of `tests.contract.evaluation_runner`, ready once constructed."""

    def __init__(self, url: str, folder: Path, delay_s: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.contract.evaluation_runner", url, str(folder)]
        environment = os.environ | {"FAKE_DELAY_S": str(delay_s), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        first_line = self.process.stdout.readline()
        if first_line != "ready\n":
            self.kill()
        assert first_line == "ready\n"

    def stop(self) -> int:
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


StartRunner = Callable[..., RunnerProcess]


@pytest.fixture
def start_runner() -> Iterator[StartRunner]:
    """Start runners, as `RunnerProcess` does, that do not outlive the test however it ends."""
    with ExitStack() as stack:

        def start(url: str, folder: Path, delay_s: float = 0.0) -> RunnerProcess:
            running = RunnerProcess(url, folder, delay_s)
            stack.callback(running.kill)
            return running

        yield start


async def wait_until(
    evaluations: Evaluations, created: Record, condition: Callable[[Record], bool], timeout_s: float = 60.0
) -> Record:
    async with asyncio.timeout(timeout_s):
        while not condition(found := await evaluations.get("ada", created.id)):
            await asyncio.sleep(0.05)
    return found


async def wait_for_end(evaluations: Evaluations, created: Record, timeout_s: float = 60.0) -> Record:
    return await wait_until(evaluations, created, lambda found: found.state.ended, timeout_s)


async def undisturbed_report(folder: Path, spec: Specification) -> bytes:
    """The report of the same evaluation, run without a queue."""
    memory = MemoryEvaluations(pipeline(folder).run)
    created = await memory.create("ada", spec)
    await asyncio.gather(*memory.tasks)
    return await memory.report("ada", created.id)


@asynccontextmanager
async def opened(url: str, limits: Limits | None = None) -> AsyncIterator[Evaluations]:
    evaluations = Evaluations(url, limits)
    await evaluations.start()
    try:
        yield evaluations
    finally:
        await evaluations.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.db'}"


@pytest.fixture
def own_url(tmp_path: Path) -> str:
    """A database of this test alone."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
async def evaluations(url: str) -> AsyncIterator[Evaluations]:
    async with opened(url) as evaluations:
        yield evaluations


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of `runner`."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def runner(url: str, work: Path) -> Iterator[RunnerProcess]:
    running = RunnerProcess(url, work, delay_s=0.02)
    try:
        yield running
        assert running.stop() == 0
    finally:
        running.kill()


# --- One runner -------------------------------------------------------------------------------------------------------


async def test_it_reports_progress_and_ends_with_the_report_of_the_pipeline(
    tmp_path: Path, evaluations: Evaluations, runner: RunnerProcess
) -> None:
    spec = specification(100, panels=QUICK, gates=("label_agreement > 0.5",))
    created = await evaluations.create("ada", spec)
    under_way = await wait_until(evaluations, created, lambda found: found.progress.done > 0)
    found = await wait_for_end(evaluations, created)
    report = await evaluations.report("ada", created.id)
    assert (under_way.state, found.state) == (State.RUNNING, State.SUCCEEDED)
    assert under_way.progress.stage
    assert found.progress.done == found.progress.total > 0
    assert [each.passed for each in found.gates] == [True]
    assert found.create_unix_s <= found.start_unix_s <= found.end_unix_s
    assert (len(report), report) == (found.report_bytes, await undisturbed_report(tmp_path, spec))


async def test_it_returns_the_earlier_evaluation_of_a_repeated_request(
    evaluations: Evaluations, runner: RunnerProcess
) -> None:
    first = await evaluations.create("ada", specification(100, panels=QUICK), request_id="r1", request_digest="d")
    await wait_for_end(evaluations, first)
    again = await evaluations.create("ada", specification(100, panels=QUICK), request_id="r1", request_digest="d")
    assert again == await evaluations.get("ada", first.id)


@pytest.mark.parametrize("done", [0, 1, 5, 12])
async def test_it_stops_a_cancelled_evaluation(
    evaluations: Evaluations, runner: RunnerProcess, work: Path, done: int
) -> None:
    created = await evaluations.create("ada", specification(300, panels=(Panel.MEMORISATION, *QUICK)))
    await wait_until(evaluations, created, lambda found: found.progress.done >= done)
    assert (await evaluations.cancel("ada", created.id)).state is State.CANCELLED
    following = await evaluations.create("ada", specification(100, panels=QUICK))
    assert (await wait_for_end(evaluations, following)).state is State.SUCCEEDED
    assert (await evaluations.get("ada", created.id)).state is State.CANCELLED
    await reached(lambda: not (work / created.id).exists())


async def test_it_does_not_start_a_deleted_evaluation(evaluations: Evaluations, runner: RunnerProcess) -> None:
    created = await evaluations.create("ada", specification(300, panels=QUICK))
    await evaluations.delete("ada", created.id)
    following = await evaluations.create("ada", specification(100, panels=QUICK))
    assert (await wait_for_end(evaluations, following)).state is State.SUCCEEDED
    assert created.id not in {each.id for each in await evaluations.list("ada")}


async def test_it_removes_the_files_of_a_deleted_evaluation(
    evaluations: Evaluations, runner: RunnerProcess, work: Path
) -> None:
    created = await evaluations.create("ada", specification(300, panels=QUICK))
    await reached((work / created.id).exists)
    await evaluations.delete("ada", created.id)
    await reached(lambda: not (work / created.id).exists())


async def test_a_job_is_json_of_a_version_that_never_changes(own_url: str, tmp_path: Path) -> None:
    """Jobs of another version would never run, and pickles in the database would run code."""
    async with opened(own_url) as evaluations:
        created = await evaluations.create("ada", specification(100, panels=QUICK))
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs-queue.db")) as connection:
        connection.row_factory = sqlite3.Row
        (job,) = map(dict, connection.execute("SELECT * FROM workflow_status"))
    assert (job["workflow_uuid"], job["application_version"]) == (created.id, "evaluations")
    assert job["serialization"] == "portable_json"


async def test_it_fails_an_evaluation_of_another_version(evaluations: Evaluations, runner: RunnerProcess) -> None:
    spec = replace(specification(100, panels=QUICK), format=0)
    found = await wait_for_end(evaluations, await evaluations.create("ada", spec))
    reason = "it was created by another version of Fount; evaluate again"
    assert (found.state, found.reason) == (State.FAILED, reason)


# --- The table and the queue disagree ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_it_runs_what_a_gateway_kept_and_did_not_enqueue(
    own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    async with opened(own_url) as evaluations:
        created = await evaluations.create("ada", specification(100, panels=QUICK))
        queue = JobQueue(jobs_url(own_url))
        queue.open()
        queue.forget([created.id])
        queue.close()
        await asyncio.to_thread(start_runner, own_url, tmp_path / "work")
        assert (await wait_for_end(evaluations, created)).state is State.SUCCEEDED


@pytest.mark.slow
async def test_it_rebuilds_a_lost_queue_from_the_table(own_url: str, tmp_path: Path, start_runner: StartRunner) -> None:
    spec = specification(600, panels=QUICK)
    async with opened(own_url) as evaluations:
        running, waiting = [await evaluations.create("ada", spec) for _ in range(2)]
        first = await asyncio.to_thread(start_runner, own_url, tmp_path / "a", 0.2)
        await wait_until(evaluations, running, lambda found: found.progress.done > 0)
        await asyncio.to_thread(first.kill)
    for file in tmp_path.glob("jobs-queue.db*"):
        file.unlink()
    async with opened(own_url) as evaluations:
        await asyncio.to_thread(start_runner, own_url, tmp_path / "b")
        for each in (running, waiting):
            assert (await wait_for_end(evaluations, each)).state is State.SUCCEEDED


# --- Runners that stop, die or hang -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_stopped_runner_gives_its_evaluation_back(
    own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    async with opened(own_url) as evaluations:
        first = await asyncio.to_thread(start_runner, own_url, tmp_path / "a", 0.2)
        created = await evaluations.create("ada", specification(600, panels=QUICK))
        await wait_until(evaluations, created, lambda found: found.progress.done > 0)
        start_s = time.monotonic()
        assert await asyncio.to_thread(first.stop) == 0
        assert time.monotonic() - start_s < 10
        assert (await evaluations.get("ada", created.id)).reason == "waits for a runner"
        second = await asyncio.to_thread(start_runner, own_url, tmp_path / "b")
        assert (await wait_for_end(evaluations, created)).state is State.SUCCEEDED
        assert await asyncio.to_thread(second.stop) == 0


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hanging"])
async def test_another_runner_takes_over_within_30_s(
    own_url: str, tmp_path: Path, start_runner: StartRunner, end: signal.Signals
) -> None:
    """One that only hangs writes nothing once it goes on."""
    spec = specification(600, panels=QUICK)
    async with opened(own_url) as evaluations:
        first = await asyncio.to_thread(start_runner, own_url, tmp_path / "a", 0.3)
        created = await evaluations.create("ada", spec)
        await wait_until(evaluations, created, lambda found: found.progress.done > 2)
        second = await asyncio.to_thread(start_runner, own_url, tmp_path / "b", 0.1)
        before = (await evaluations.get("ada", created.id)).progress.done
        first.process.send_signal(end)
        start_s = time.monotonic()
        await wait_until(evaluations, created, lambda found: found.progress.done > before + 2 or found.state.ended)
        assert time.monotonic() - start_s < 30
        if end is signal.SIGSTOP:
            first.process.send_signal(signal.SIGCONT)
        assert (await wait_for_end(evaluations, created)).state is State.SUCCEEDED
        assert await evaluations.report("ada", created.id) == await undisturbed_report(tmp_path / "c", spec)
        if end is signal.SIGSTOP:
            assert await asyncio.to_thread(first.stop) == 0
        assert await asyncio.to_thread(second.stop) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)  # twenty starts of a process, on a machine that may be busy
@pytest.mark.parametrize(("kind", "runners"), [("sqlite", 1), ("postgres", 2)])
async def test_the_report_is_the_same_whatever_is_killed(
    kind: str, runners: int, own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    spec, chance = specification(600), random.Random(6)
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres()) if kind == "postgres" else own_url
        evaluations = await stack.enter_async_context(opened(url))

        def start(number: int) -> RunnerProcess:
            return start_runner(url, tmp_path / f"work-{number}", 0.1)

        running = [await asyncio.to_thread(start, number) for number in range(runners)]
        created = await evaluations.create("ada", spec)
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.0, 8.0))
            if (await evaluations.get("ada", created.id)).state.ended:
                created = await evaluations.create("ada", spec)  # so that there is something to kill
            victim = chance.randrange(runners)
            await asyncio.to_thread(running[victim].kill)
            running[victim] = await asyncio.to_thread(start, victim)
        found = await wait_for_end(evaluations, created, 180)
        assert (found.state, found.reason) == (State.SUCCEEDED, "")
        every = await evaluations.list("ada")
        assert {each.state for each in every} == {State.SUCCEEDED}
        reports = {await evaluations.report("ada", each.id) for each in every}
        assert reports == {await undisturbed_report(tmp_path / "undisturbed", spec)}
        for each in running:
            assert await asyncio.to_thread(each.stop) == 0


@pytest.mark.slow
async def test_it_fails_an_evaluation_that_kills_its_runners(
    own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    async with opened(own_url) as evaluations:
        created = await evaluations.create("ada", specification(100, panels=QUICK))
        database = Database(jobs_url(own_url))
        with database.write() as connection:
            connection.execute(sa.update(table).values(attempts=10, stage="drawing samples"))
        database.close()
        await asyncio.to_thread(start_runner, own_url, tmp_path / "work")
        found = await wait_for_end(evaluations, created)
    assert found.state is State.FAILED
    assert "its runners died 10 times while drawing samples" in found.reason


@pytest.mark.slow
async def test_cancelling_stops_a_step_that_waits_for_workers(
    own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    async with opened(own_url) as evaluations:
        running = await asyncio.to_thread(start_runner, own_url, tmp_path / "a", 600.0)
        created = await evaluations.create("ada", specification(100, panels=QUICK))
        await wait_until(evaluations, created, lambda found: found.progress.stage == "drawing samples")
        await evaluations.cancel("ada", created.id)
        following = await evaluations.create("ada", specification(100, panels=QUICK))
        await wait_until(evaluations, following, lambda found: found.state is State.RUNNING, 20)
        await asyncio.to_thread(running.kill)


@pytest.mark.slow
async def test_it_goes_on_after_the_database_was_away(tmp_path: Path, start_runner: StartRunner) -> None:
    spec = specification(600, panels=QUICK)
    with postgres() as url:
        async with opened(url) as evaluations:
            running = await asyncio.to_thread(start_runner, url, tmp_path / "a", 0.2)
            created = await evaluations.create("ada", spec)
            for _ in range(4):
                await asyncio.sleep(1.5)
                await asyncio.to_thread(drop_connections, url)
            async with asyncio.timeout(90):
                while not (found := await get_if_reachable(evaluations, created)) or not found.state.ended:
                    await asyncio.sleep(0.2)
            assert (found.state, found.reason) == (State.SUCCEEDED, "")
            assert await evaluations.report("ada", created.id) == await undisturbed_report(tmp_path / "b", spec)
            assert await asyncio.to_thread(running.stop) == 0


def drop_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid != pg_backend_pid()"
        )


async def get_if_reachable(evaluations: Evaluations, created: Record) -> Record | None:
    try:
        return await evaluations.get("ada", created.id)
    except JobsUnreachable:
        return None


@pytest.mark.slow
async def test_it_queues_a_thousand_and_refuses_one_more(
    own_url: str, tmp_path: Path, start_runner: StartRunner
) -> None:
    async with opened(own_url, Limits(queued_each=1000)) as evaluations:
        for _ in range(1000):
            await evaluations.create("ada", specification(100, panels=QUICK))
        with pytest.raises(Overloaded, match="1000 evaluations"):
            await evaluations.create("bob", specification(100, panels=QUICK))
        assert (await evaluations.usage()).states[State.QUEUED] == 1000
        running = await asyncio.to_thread(start_runner, own_url, tmp_path / "work")
        start_s = time.monotonic()
        async with asyncio.timeout(60):
            while not (await evaluations.usage()).states[State.SUCCEEDED]:
                await asyncio.sleep(0.1)
        assert time.monotonic() - start_s < 30
        assert await asyncio.to_thread(running.stop) == 0


# --- Child processes --------------------------------------------------------------------------------------------------


async def test_dead_runner_processes_are_restarted_and_stop_on_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$$ $@ $FOUNT_RUNNER_JOBS" >> {tmp_path}/log\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    processes = RunnerProcesses(1, ["--server", "here"], {"FOUNT_RUNNER_JOBS": "secret"})
    await processes.start()
    await reached(lambda: len(lines(tmp_path)) == 1)
    os.kill(int(lines(tmp_path)[0].split()[0]), signal.SIGKILL)
    await reached(lambda: len(lines(tmp_path)) == 2)
    await processes.close()
    pids, commands = zip(*(each.split(" ", 1) for each in lines(tmp_path)), strict=True)
    assert commands == ("-P -m fount runner --server here secret",) * 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids[1]), 0)


async def test_a_runner_process_that_could_not_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr("service.evaluation.jobs.hosting._FIRST_DELAY_S", 0.05)
    processes = RunnerProcesses(1, [], {})
    await processes.start()
    await reached(lambda: "could not be started" in caplog.text)
    script.write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\nexec sleep 60\n")
    script.chmod(0o755)
    await reached(lambda: lines(tmp_path) == ["started"])
    await processes.close()


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)


def test_the_command_reports_an_unreachable_database(tmp_path: Path) -> None:
    jobs = "postgresql://u:secret@127.0.0.1:1/x"
    result = CliRunner().invoke(runner_command, ["--jobs", jobs, "--work-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "evaluations cannot be kept in postgresql" in result.output
    assert "secret" not in result.output


def test_the_command_reports_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    args = ["--jobs", f"sqlite:///{tmp_path / 'jobs.db'}", "--work-dir", str(tmp_path / "file" / "work")]
    result = CliRunner().invoke(runner_command, args)
    assert result.exit_code == 1
    assert "cannot be created" in result.output
    assert "--work-dir" in result.output


async def test_a_runner_stops_when_the_process_that_started_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str | None) -> None:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", no_library)
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid()))  # which is not the parent of this process
    stop = asyncio.Event()
    await asyncio.wait_for(stop_with_parent(stop), 5)
    assert stop.is_set()


@pytest.mark.slow
def test_the_command_stops_on_a_signal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    command = [sys.executable, "-m", "fount", "runner", "--jobs", url, "--work-dir", str(tmp_path / "work")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first_line = process.stdout.readline()
    finally:
        process.terminate()
        status = process.wait(20)
        process.stdout.close()
    assert first_line.startswith("Fount runs evaluations as ")
    assert status == 0
