"""Evaluations while processes die: they go on, and end with the report of one that nothing happened to."""

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
from tests.e2e.evaluating import (
    GENERATOR,
    Silence,
    content,
    patiently,
    reached,
    report_of,
    runner,
    runners_of,
    until,
    whole,
)
from tests.e2e.processes import FOUNT, Served, environment, gateway, listening, serving

pytestmark = pytest.mark.slow

QUESTION: dict[str, Any] = {"count": 3000, "seed": 9, "panels": ["realism", "memorisation", "label-fidelity"]}
SILENT_S = 5.0
TAKEN_OVER_S = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sturdy")


@pytest.fixture(scope="module")
def stack(archives: Path, place: Path) -> Iterator[Served]:
    """One stack, which recovers from what is done to it."""
    with serving(archives, place, "--state-dir", str(place / "state"), runners=1) as served:
        yield served


@pytest.fixture(scope="module")
def client(stack: Served) -> Iterator[Client]:
    with Client(stack.server) as client:
        yield client


def ask(client: Client, **question: Any) -> EvaluationInfo:
    return patiently(lambda: client.evaluate(GENERATOR, **(question or QUESTION)))


@pytest.fixture(scope="module")
def undisturbed(client: Client) -> dict[str, Any]:
    """What the question's answer is."""
    return report_of(client, whole(client, ask(client).id).id)


def folders_of(place: Path) -> set[str]:
    """Of evaluations whose files are there."""
    return {each.name for each in (place / "state" / "evaluations").iterdir()} - {"references"}


def test_a_runner_killed_over_and_over_is_started_again_and_ends_with_the_same_report(
    stack: Served, client: Client, undisturbed: dict[str, Any], place: Path
) -> None:
    asked = ask(client)
    watch = Silence(stack.server, asked.id)
    killed = set()
    for done in (1, 14, 40):
        until(client, asked.id, lambda info, done=done: info.progress.done >= done)
        reached(lambda: bool(runners_of(stack)))
        (process,) = runners_of(stack)
        killed.add(process.pid)
        process.kill()
        process.wait(10)
    assert report_of(client, whole(client, asked.id).id) == undisturbed
    done = [look.progress.done for look in watch.end()]
    assert done == sorted(done)
    assert len(killed) == 3
    assert watch.longest_s < SILENT_S
    reached(lambda: asked.id not in folders_of(place))


def test_a_gateway_killed_and_started_again_with_its_state_goes_on(
    archives: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Whoever watches by the command line waits for it."""
    state = ("--state-dir", str(tmp_path / "state"))
    with serving(archives, tmp_path, *state, runners=1) as served, Client(served.server) as client:
        asked = ask(client)
        command = [FOUNT, "evaluation", asked.id, "--watch", "--server", served.server, "--report", "report.json"]
        watching = subprocess.Popen(
            command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = until(client, asked.id, lambda info: info.progress.done >= 3)
        family = psutil.Process(served.process.pid).children(recursive=True)
        time.sleep(1.0)  # for the command, which has to be told something before it waits for a restart
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
        assert not psutil.wait_procs(family, timeout=30)[1]
        with serving(archives, tmp_path, *state, "--port", str(served.port), runners=1) as again:
            with Client(again.server) as other:
                assert other.evaluation(asked.id).progress.done >= before.progress.done
                last = whole(other, asked.id)
                assert (last.created, last.started) == (asked.created, before.started)
            assert watching.wait(60) == 0
    assert content(tmp_path / "report.json") == undisturbed


def test_a_torchserve_killed_meanwhile_is_waited_for(
    stack: Served, client: Client, undisturbed: dict[str, Any]
) -> None:
    asked = ask(client)
    watch = Silence(stack.server, asked.id)
    until(client, asked.id, lambda info: info.progress.done >= 1)
    stack.java().kill()
    assert report_of(client, whole(client, asked.id).id) == undisturbed
    assert any("waits for workers of" in look.state_reason for look in watch.end())
    assert watch.longest_s < SILENT_S


def test_one_is_cancelled_at_every_stage(stack: Served, client: Client, place: Path) -> None:
    question: dict[str, Any] = {"count": 100, "seed": 2}
    steps = whole(client, ask(client, **question).id).progress.total
    stages = set()
    for done in range(0, steps - 1, 6):
        asked = ask(client, **question)
        seen = until(client, asked.id, lambda info, done=done: info.state == "running" and info.progress.done >= done)
        begun_s = time.monotonic()
        cancelled = client.cancel_evaluation(asked.id)
        stages.add(seen.progress.stage)
        assert cancelled.state == "cancelled", seen
        *_, last = client.watch_evaluation(asked.id)
        assert (last.state, last.gates_passed) == ("cancelled", None)
        reached(lambda id=asked.id: id not in folders_of(place))  # so its runner has let go of it
        assert time.monotonic() - begun_s < 15, seen
    assert len(stages) >= 6
    assert [len(runners_of(stack)), client.evaluation(asked.id).state] == [1, "cancelled"]
    whole(client, ask(client, count=50, seed=1, panels=["label-fidelity"]).id)


def test_a_killed_one_of_two_runners_on_postgresql_is_taken_over_by_the_other(
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
            """The process that works on it, by its runner's id: HOST-PID-WORD."""
            row = database.execute("SELECT runner FROM fount_evaluations WHERE id = %s", [asked.id]).fetchone()
            return int(row[0].split("-")[-2]) if row and row[0] else 0

        asked = ask(client)
        watch = Silence(front.server, asked.id)
        until(client, asked.id, lambda info: info.progress.done >= 8)
        victim, heir = (first, second) if holder() == first.pid else (second, first)
        assert holder() == victim.pid
        victim.kill()
        killed_s = time.monotonic()
        reached(lambda: holder() == heir.pid)
        taken_s = time.monotonic() - killed_s
        print(f"taken over after {taken_s:.1f} s")  # noqa: T201
        assert taken_s < TAKEN_OVER_S
        assert report_of(client, whole(client, asked.id).id) == undisturbed
        watch.end()
        assert watch.longest_s < SILENT_S
