"""Processes of one server, by role: what CPU time they took, what memory they hold, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psutil

__all__ = ["Server", "busy_cpu_s", "cpu_s", "end_group", "roles_below", "through_stubs", "workers_of"]

_STOP_S = 30.0


@dataclass(kw_only=True)
class Server:
    """A server that is up.

    Attributes:
        url: how clients name it, see `Load.server`.
        metrics: where its series are; "" when it has none.
        roles: "gateway", "java", "worker" (with more than one TorchServe "worker 1", "worker 2") to processes.
    """

    url: str
    metrics: str = ""
    roles: dict[str, list[psutil.Process]] = field(default_factory=dict)

    def cpu_by_role(self) -> dict[str, float]:
        """CPU-seconds of each role since its processes began."""
        return {role: cpu_s(processes) for role, processes in self.roles.items()}

    def gateway_bytes(self) -> int:
        """Resident memory of the gateway."""
        return sum(int(process.memory_info().rss) for process in self.roles["gateway"])


def through_stubs(server: Server) -> Server:
    """The same Fount, asked through generated stubs instead of `fount.client.aio`."""
    return replace(server, url=server.url.replace("fount://", "grpc://"))


def roles_below(gateway: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Tell the processes of `fount serve` apart: the gateway, its Java, Java's workers."""
    java = [each for each in gateway.children(recursive=True) if "java" in each.name()]
    return {"gateway": [gateway], "java": java, "worker": workers_of(java)}


def workers_of(java: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The Python processes below Java."""
    return [each for process in java for each in process.children(recursive=True) if "python" in each.name()]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """User and system seconds."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def busy_cpu_s() -> float:
    """CPU-seconds that anything on this machine took, time stolen from it included."""
    times: Mapping[str, float] = psutil.cpu_times()._asdict()
    return sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process that was started as a session of its own, with all it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
