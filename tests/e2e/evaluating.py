"""Evaluations on the real stack: asked for by clients and commands, worked on by runners, and their reports."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from fount import Client
from fount.errors import FountError, ServerUnavailable
from fount.evaluation.types import EvaluationInfo
from tests.e2e.processes import FOUNT, Served, environment

GENERATOR = "digits-cvae"
LIVES_S = 300
"""How long an evaluation may take here, with what is done to it."""

T = TypeVar("T")


def whole(client: Client, id: str) -> EvaluationInfo:
    """What an evaluation was at its end, with a report."""
    *_, last = client.watch_evaluation(id)
    assert (last.state, last.state_reason) == ("succeeded", ""), last.state_reason
    return last


def content(report: bytes | Path) -> dict[str, Any]:
    """What a JSON report tells, but for its job: equal questions have equal ones."""
    told: dict[str, Any] = json.loads(report if isinstance(report, bytes) else report.read_bytes())
    assert set(told.pop("job")) >= {"id"}
    return told


def report_of(client: Client, id: str) -> dict[str, Any]:
    return content(client.evaluation_report(id, "json").data)


def runners_of(served: Served) -> list[psutil.Process]:
    """The runner processes of a gateway that are alive."""
    found = []
    for each in psutil.Process(served.process.pid).children():
        try:
            if "runner" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.NoSuchProcess:  # it just ended
            continue
    return found


def patiently(ask: Callable[[], T], timeout_s: float = 120) -> T:
    """Ask until there is an answer: models load, gateways start."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except ServerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def reached(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s")
        time.sleep(0.05)


def until(
    client: Client, id: str, condition: Callable[[EvaluationInfo], bool], timeout_s: float = 120
) -> EvaluationInfo:
    """Look until an evaluation is so far; it must not have ended before, unless that is what is waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition(info := client.evaluation(id)):
        if info.is_over or time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s, but {info.state}: {info.progress} {info.state_reason}")
        time.sleep(0.02)
    return info


class Silence:
    """Watches an evaluation from a thread, and takes the longest time without a word."""

    def __init__(self, server: str, id: str) -> None:
        self.longest_s = 0.0
        self.looks: list[EvaluationInfo] = []
        self.error: FountError | None = None
        self._server, self._id = server, id
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> list[EvaluationInfo]:
        """Wait for the last look."""
        self._thread.join(LIVES_S)
        assert self.error is None, self.error
        assert self.looks[-1].is_over
        return self.looks

    def _watch(self) -> None:
        heard_s = time.monotonic()
        try:
            with Client(self._server) as client:
                for look in client.watch_evaluation(self._id):
                    heard_s, before_s = time.monotonic(), heard_s
                    self.longest_s = max(self.longest_s, heard_s - before_s)
                    self.looks.append(look)
        except FountError as error:
            self.error = error


@contextmanager
def runner(jobs: str, server: str, home: Path, *options: str) -> Iterator[psutil.Process]:
    """`fount runner`, from when it takes evaluations until the block ends."""
    process = subprocess.Popen(
        [FOUNT, "runner", "--server", server, "--work-dir", str(home / "work"), *options], text=True, cwd=home,
        env=environment(home, {"FOUNT_RUNNER_JOBS": jobs}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    reading = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reading.start()
    try:
        assert "Fount runs evaluations" in lines.get(timeout=120)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        reading.join(5)
        process.stdout.close()


def _read(stdout: Any, lines: queue.Queue[str]) -> None:
    for line in stdout:
        lines.put(line)
