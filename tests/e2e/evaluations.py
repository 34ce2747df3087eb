"""Helpers for evaluations on the real stack: clients, runner processes and reports."""

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
TIMEOUT_S = 300
"""How long an evaluation may take here, with all the faults."""

T = TypeVar("T")


def wait_for_success(client: Client, id: str) -> EvaluationInfo:
    """Watch an evaluation to its end, which must be a success."""
    *_, last = client.watch_evaluation(id)
    assert (last.state, last.state_reason) == ("succeeded", ""), last.state_reason
    return last


def content(report: bytes | Path) -> dict[str, Any]:
    """Parse a JSON report without its job: equal evaluations have equal content."""
    parsed: dict[str, Any] = json.loads(report if isinstance(report, bytes) else report.read_bytes())
    assert set(parsed.pop("job")) >= {"id"}
    return parsed


def report_of(client: Client, id: str) -> dict[str, Any]:
    return content(client.evaluation_report(id, "json").data)


def runners_of(served: Served) -> list[psutil.Process]:
    """Return the live runner processes of a gateway."""
    found = []
    for each in psutil.Process(served.process.pid).children():
        try:
            if "runner" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.NoSuchProcess:  # it just ended
            continue
    return found


def retry(call: Callable[[], T], timeout_s: float = 120) -> T:
    """Repeat a call while the server is unavailable: models load, gateways start."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except ServerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def reached(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s")
        time.sleep(0.05)


def until(
    client: Client, id: str, condition: Callable[[EvaluationInfo], bool], timeout_s: float = 120
) -> EvaluationInfo:
    """Poll an evaluation until a condition holds; it must not end before."""
    deadline = time.monotonic() + timeout_s
    while not condition(info := client.evaluation(id)):
        if info.is_over or time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s, but {info.state}: {info.progress} {info.state_reason}")
        time.sleep(0.02)
    return info


class Watch:
    """Watches an evaluation from a thread, and measures the longest time between messages."""

    def __init__(self, server: str, id: str) -> None:
        self.longest_s = 0.0
        self.states: list[EvaluationInfo] = []
        self.error: FountError | None = None
        self._server, self._id = server, id
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> list[EvaluationInfo]:
        """Wait for the last state."""
        self._thread.join(TIMEOUT_S)
        assert self.error is None, self.error
        assert self.states[-1].is_over
        return self.states

    def _watch(self) -> None:
        last_s = time.monotonic()
        try:
            with Client(self._server) as client:
                for state in client.watch_evaluation(self._id):
                    last_s, before_s = time.monotonic(), last_s
                    self.longest_s = max(self.longest_s, last_s - before_s)
                    self.states.append(state)
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
