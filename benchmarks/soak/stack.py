"""The soaked stack: `fount serve` in processes of its own, with access to its processes and metrics."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.fount_servers import Gateway, run_fount
from benchmarks.processes import StartError

__all__ = ["Stack", "running_stack"]

_STOP_S = 40.0
_READY = re.compile(r"^fount_ready_workers\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running `fount serve`.

    Attributes:
        gateway: its process and ports.
        expected_workers: number of worker processes when all are running.
    """

    gateway: Gateway
    expected_workers: int

    @property
    def server(self) -> str:
        """The gateway's address."""
        return f"127.0.0.1:{self.gateway.port}"

    @property
    def process(self) -> subprocess.Popen[str]:
        """The gateway's process."""
        return self.gateway.process

    def java(self) -> psutil.Process | None:
        """Find the current TorchServe process."""
        try:
            return next((each for each in psutil.Process(self.process.pid).children() if "java" in each.name()), None)
        except psutil.NoSuchProcess:
            return None

    def workers(self) -> list[psutil.Process]:
        """Find the current worker processes."""
        java = self.java()
        try:
            found = [each for each in java.children() if "python" in each.name()] if java else []
            return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def ready_workers(self) -> int | None:
        """Read the gateway's count of ready workers; None when it does not respond."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.http_port}/metrics", timeout=5) as response:
                text = response.read().decode()
        except (urllib.error.URLError, OSError):
            return None
        return round(sum(map(float, _READY.findall(text))))

    def has_all_workers(self) -> bool:
        """Whether every worker is running and ready."""
        return len(self.workers()) == self.expected_workers == self.ready_workers()

    def rss_mib(self) -> float:
        """Read the gateway's resident memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def stop(self) -> tuple[int, list[int]]:
        """Terminate it as an operator would.

        Returns:
            Its exit status, and the ids of processes it left behind.
        """
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        remaining = [each.pid for each in psutil.wait_procs(family, timeout=10)[1]]
        return status, remaining


@contextmanager
def running_stack(models: Sequence[str], workers: int, folder: Path) -> Iterator[Stack]:
    """Pack models and serve them until the block ends.

    Args:
        models: names in model_store/.
        workers: processes of each model.
        folder: for archives, state and the log.

    Raises:
        StartError: the models cannot be packed, or the server does not start.
    """
    archives = str(folder / "archives")
    command = [sys.executable, "-m", "fount", "pack", *models, "--out", archives]
    packed = subprocess.run(command, text=True, capture_output=True, check=False)
    if packed.returncode:
        raise StartError(packed.stderr)
    arguments = ["serve", "--archives", archives, "--state-dir", str(folder / "state"), "--port", "0"]
    arguments += ["--http-port", "0", "--workers", str(workers)]
    with run_fount(arguments, folder / "serve.log") as gateway:
        yield Stack(gateway=gateway, expected_workers=workers * len(models))
