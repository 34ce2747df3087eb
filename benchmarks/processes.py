"""Processes of one server, by role: their CPU time and memory, and how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import psutil

__all__ = ["Server", "StartError", "busy_cpu_s", "cpu_s", "end_group", "roles_below", "through_stubs", "workers_of"]

_STOP_S = 30.0


class StartError(Exception):
    """A server did not start. The message contains the end of its output."""


@dataclass(kw_only=True)
class Server:
    """A running server.

    Attributes:
        url: its address for clients, see `Load.server`.
        metrics: URL of its metrics; "" when it has none.
        polls: whether it uses CPU without load, so that it is stopped while others are loaded.
        roles: processes of "gateway", "java", "worker" (with several TorchServes "worker 1", "worker 2").
    """

    url: str
    metrics: str = ""
    polls: bool = False
    roles: dict[str, list[psutil.Process]] = field(default_factory=dict)

    def cpu_by_role(self) -> dict[str, float]:
        """Sum the CPU-seconds of each role since its processes started."""
        return {role: cpu_s(processes) for role, processes in self.roles.items()}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the processes of a server that polls run until the block ends."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for process in (each for processes in self.roles.values() for each in processes if self.polls):
            process.send_signal(number)

    def gateway_bytes(self) -> int:
        """Read the resident memory of the gateway."""
        return sum(int(process.memory_info().rss) for process in self.roles["gateway"])


def through_stubs(server: Server) -> Server:
    """Name the same server for clients with generated stubs instead of `fount.client.aio`."""
    return replace(server, url=server.url.replace("fount://", "grpc://"))


def roles_below(gateway: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Find the processes of `fount serve` by role: the gateway, its Java, Java's workers."""
    java = [each for each in gateway.children(recursive=True) if "java" in each.name()]
    return {"gateway": [gateway], "java": java, "worker": workers_of(java)}


def workers_of(java: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Find the Python processes below Java."""
    return [each for process in java for each in process.children(recursive=True) if "python" in each.name()]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Sum user and system seconds."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def busy_cpu_s() -> float:
    """Sum the CPU-seconds of all processes on this machine, including stolen time."""
    times: Mapping[str, float] = psutil.cpu_times()._asdict()
    return sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session of its own, with all its children."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
