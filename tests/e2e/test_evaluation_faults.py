"""Evaluations while processes are killed: they continue, and end with the report of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from fount import Client
from fount.evaluation.types import EvaluationInfo
from tests.databases import postgres
from tests.e2e.evaluations import (
    GENERATOR,
    Watch,
    content,
    reached,
    report_of,
    retry,
    runner,
    runners_of,
    until,
    wait_for_success,
)
from tests.e2e.processes import FOUNT, Served, environment, gateway, listening, serving

pytestmark = pytest.mark.slow

EVALUATION: dict[str, Any] = {"count": 3000, "seed": 9, "panels": ["realism", "memorisation", "label-fidelity"]}
SILENT_S = 5.0
TAKEN_OVER_S = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sturdy")


@pytest.fixture(scope="module")
def stack(archives: Path, place: Path) -> Iterator[Served]:
    """One stack, which recovers from every fault."""
    with serving(archives, place, "--state-dir", str(place / "state"), runners=1) as served:
        yield served


@pytest.fixture(scope="module")
def client(stack: Served) -> Iterator[Client]:
    with Client(stack.server) as client:
        yield client


def create(client: Client, **options: Any) -> EvaluationInfo:
    return retry(lambda: client.evaluate(GENERATOR, **(options or EVALUATION)))


@pytest.fixture(scope="module")
def undisturbed(client: Client) -> dict[str, Any]:
    """The report of an undisturbed evaluation."""
    return report_of(client, wait_for_success(client, create(client).id).id)


def folders_of(place: Path) -> set[str]:
    """Return the evaluations whose files exist."""
    return {each.name for each in (place / "state" / "evaluations").iterdir()} - {"references"}


def test_a_runner_killed_repeatedly_is_restarted_and_ends_with_the_same_report(
    stack: Served, client: Client, undisturbed: dict[str, Any], place: Path
) -> None:
    created = create(client)
    watch = Watch(stack.server, created.id)
    killed = set()
    for done in (1, 14, 40):
        until(client, created.id, lambda info, done=done: info.progress.done >= done)
        reached(lambda: bool(runners_of(stack)))
        (process,) = runners_of(stack)
        killed.add(process.pid)
        process.kill()
        process.wait(10)
    assert report_of(client, wait_for_success(client, created.id).id) == undisturbed
    done = [each.progress.done for each in watch.end()]
    assert done == sorted(done)
    assert len(killed) == 3
    assert watch.longest_s < SILENT_S
    reached(lambda: created.id not in folders_of(place))


def test_a_killed_gateway_continues_when_restarted_with_its_state(
    archives: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """A command that watches the evaluation waits for it."""
    state = ("--state-dir", str(tmp_path / "state"))
    with serving(archives, tmp_path, *state, runners=1) as served, Client(served.server) as client:
        created = create(client)
        command = [FOUNT, "evaluation", created.id, "--watch", "--server", served.server, "--report", "report.json"]
        watching = subprocess.Popen(
            command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = until(client, created.id, lambda info: info.progress.done >= 3)
        family = psutil.Process(served.process.pid).children(recursive=True)
        time.sleep(1.0)  # the command waits for a restart only after it got a first message
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
        assert not psutil.wait_procs(family, timeout=30)[1]
        with serving(archives, tmp_path, *state, "--port", str(served.port), runners=1) as again:
            with Client(again.server) as other:
                assert other.evaluation(created.id).progress.done >= before.progress.done
                last = wait_for_success(other, created.id)
                assert (last.created, last.started) == (created.created, before.started)
            assert watching.wait(60) == 0
    assert content(tmp_path / "report.json") == undisturbed


def test_a_killed_torchserve_is_waited_for(stack: Served, client: Client, undisturbed: dict[str, Any]) -> None:
    created = create(client)
    watch = Watch(stack.server, created.id)
    until(client, created.id, lambda info: info.progress.done >= 1)
    stack.java().kill()
    assert report_of(client, wait_for_success(client, created.id).id) == undisturbed
    assert watch.end()[-1].state == "succeeded"  # the gateway waits for workers itself, up to --worker-wait-s
    assert watch.longest_s < SILENT_S


def test_an_evaluation_can_be_cancelled_at_every_stage(stack: Served, client: Client, place: Path) -> None:
    options: dict[str, Any] = {"count": 100, "seed": 2}
    steps = wait_for_success(client, create(client, **options).id).progress.total
    stages = set()
    for done in range(0, steps - 1, 6):
        created = create(client, **options)
        seen = until(client, created.id, lambda info, done=done: info.state == "running" and info.progress.done >= done)
        start_s = time.monotonic()
        cancelled = client.cancel_evaluation(created.id)
        stages.add(seen.progress.stage)
        assert cancelled.state == "cancelled", seen
        *_, last = client.watch_evaluation(created.id)
        assert (last.state, last.gates_passed) == ("cancelled", None)
        reached(lambda id=created.id: id not in folders_of(place))  # its runner has stopped working on it
        assert time.monotonic() - start_s < 15, seen
    assert len(stages) >= 6
    assert [len(runners_of(stack)), client.evaluation(created.id).state] == [1, "cancelled"]
    wait_for_success(client, create(client, count=50, seed=1, panels=["label-fidelity"]).id)


def test_the_second_runner_on_postgresql_takes_over_from_a_killed_one(
    stack: Served, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    java = stack.java()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        postgres() as jobs,
        gateway(
            tmp_path, listening(java.pid), token_file=Path(java.cwd()) / "key_file.json",
            extra={"FOUNT_GATEWAY_JOBS": jobs, "FOUNT_GATEWAY_RUNNERS": "0"},
        ) as front,
        runner(jobs, front.server, tmp_path / "a") as first,
        runner(jobs, front.server, tmp_path / "b") as second,
        Client(front.server) as client,
        psycopg.connect(jobs, autocommit=True) as database,
    ):  # fmt: skip

        def holder() -> int:
            """Return the process that works on it, from its runner's id: HOST-PID-RANDOM."""
            row = database.execute("SELECT runner FROM fount_evaluations WHERE id = %s", [created.id]).fetchone()
            return int(row[0].split("-")[-2]) if row and row[0] else 0

        created = create(client)
        watch = Watch(front.server, created.id)
        until(client, created.id, lambda info: info.progress.done >= 8)
        victim, heir = (first, second) if holder() == first.pid else (second, first)
        assert holder() == victim.pid
        victim.kill()
        killed_s = time.monotonic()
        reached(lambda: holder() == heir.pid)
        taken_s = time.monotonic() - killed_s
        print(f"taken over after {taken_s:.1f} s")  # noqa: T201
        assert taken_s < TAKEN_OVER_S
        assert report_of(client, wait_for_success(client, created.id).id) == undisturbed
        watch.end()
        assert watch.longest_s < SILENT_S
