"""The stack that is soaked: `fount serve` as a process of its own, and a look at what it is made of."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["SoakError", "Stack", "running_stack"]

_FOUNT = str(Path(sys.executable).parent / "fount")
_START_S, _STOP_S = 180.0, 40.0
_LINES = 2000


class SoakError(Exception):
    """The soak cannot be run at all; what it finds is told in its report."""


@dataclass(kw_only=True)
class Stack:
    """A running `fount serve`.

    Attributes:
        process: the gateway.
        port, http_port: where it listens, on loopback.
        workers_wanted: how many worker processes it has when all is well.
        lines: the end of what it printed.
    """

    process: subprocess.Popen[str]
    workers_wanted: int
    port: int = 0
    http_port: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def server(self) -> str:
        """The gateway's address."""
        return f"127.0.0.1:{self.port}"

    def java(self) -> psutil.Process | None:
        """The TorchServe there is now."""
        try:
            return next((each for each in psutil.Process(self.process.pid).children() if "java" in each.name()), None)
        except psutil.NoSuchProcess:
            return None

    def workers(self) -> list[psutil.Process]:
        """The worker processes there are now."""
        java = self.java()
        try:
            found = [each for each in java.children() if "python" in each.name()] if java else []
            return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def ready_workers(self) -> int:
        """As the gateway counts them; -1 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return -1
        return round(sum(map(float, re.findall(r"^fount_ready_workers\{.*\} (\S+)$", text, re.MULTILINE))))

    def is_whole(self) -> bool:
        """Whether every worker is there and ready."""
        return len(self.workers()) == self.workers_wanted == self.ready_workers()

    def rss_mib(self) -> float:
        """The gateway's own memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def stop(self) -> tuple[int, list[int]]:
        """End it as an operator would.

        Returns:
            Its exit status, and the processes it left behind.
        """
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        left = [each.pid for each in psutil.wait_procs(family, timeout=10)[1]]
        return status, left


@contextmanager
def running_stack(models: Sequence[str], workers: int, folder: Path) -> Iterator[Stack]:
    """Pack models and serve them until the block ends.

    Args:
        models: names in model_store/.
        workers: processes a model.
        folder: for archives and state.

    Raises:
        SoakError: they cannot be packed, or do not come up.
    """
    archives = folder / "archives"
    packed = subprocess.run([_FOUNT, "pack", *models, "--out", str(archives)], text=True, capture_output=True,
                            check=False)  # fmt: skip
    if packed.returncode:
        raise SoakError(packed.stderr)
    command = [_FOUNT, "serve", "--archives", str(archives), "--state-dir", str(folder / "state"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--http-port", "0", "--workers", str(workers)], env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    stack = Stack(process=process, workers_wanted=workers * len(models))
    try:
        _wait_for_ports(stack)
        yield stack
    finally:
        if process.poll() is None:
            stack.stop()
        if process.stdout:
            process.stdout.close()


def _wait_for_ports(stack: Stack) -> None:
    told: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(stack, told), daemon=True).start()
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and (stack.process.poll() is None or not told.empty()):
        try:
            line = told.get(timeout=0.2)
        except queue.Empty:
            continue
        if found := re.search(r"gRPC on port (\d+); .* on port (\d+)", line):
            stack.port, stack.http_port = int(found[1]), int(found[2])
            return
    raise SoakError("fount serve did not come up:\n" + "".join(stack.lines))


def _read_lines(stack: Stack, told: queue.Queue[str]) -> None:
    """Read whatever the gateway prints, all the time: a full pipe would stop it."""
    stdout = stack.process.stdout
    if stdout is None:
        return
    try:
        for line in stdout:
            stack.lines = [*stack.lines[-_LINES:], line]
            told.put(line)
    except ValueError:
        pass  # closed at the end
