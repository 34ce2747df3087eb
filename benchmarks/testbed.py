"""The testbed: all servers, limits and client processes of one precision, running together and loaded one at a time.

`open_testbed` starts it, `check_bytes` proves that its servers are comparable, and `workloads` puts loads on it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.child import ROOT, Child, ChildError
from benchmarks.fount_servers import fount_serve, gateway_with_two_torchserves
from benchmarks.loads import Load, Observations
from benchmarks.model_cpu import Calls, read_calls
from benchmarks.plan import Layout, Plan, Precision
from benchmarks.processes import Server, busy_cpu_s, cpu_s, through_stubs
from benchmarks.torchserve_alone import torchserve_alone, worker_environment

__all__ = ["Limit", "Testbed", "Window", "check_bytes", "open_testbed"]

_LEAD_S = 0.1  # from sending a load to clients until it starts
_CLIENTS = 4
_MIN_TRIAL_S = 0.3  # of one batch size of the limit
_DRAWS = 16  # samples whose bytes are compared
_REPLICAS = Layout(workers=2, threads=1)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Measurements of a time window.

    Attributes:
        begin, end: on the clock of `loads`.
        seen: observations of each client.
        cpu_s: CPU-seconds by role of the loaded server, and of the "client".
        calls: worker calls of its gateway.
        idle_share: cores used by the other servers.
        unrelated_share: cores used by processes outside this benchmark.
    """

    begin: float
    end: float
    seen: Sequence[Observations]
    cpu_s: Mapping[str, float]
    calls: Calls
    idle_share: float
    unrelated_share: float

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.end - self.begin


@dataclass(kw_only=True)
class Limit:
    """The processes of one layout without a server.

    Attributes:
        children: one for each worker.
        sizes: the two batch sizes with the highest rate.
        by_size: samples/s of one process alone, by batch size.
        cpu_s_by_batch: CPU-seconds of one batch, by batch size.
    """

    children: list[Child]
    sizes: tuple[int, ...] = ()
    by_size: dict[int, float] = field(default_factory=dict)
    cpu_s_by_batch: dict[int, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Testbed:
    """The running processes of one precision.

    Attributes:
        plan: of the run.
        precision: of all processes.
        clients: client processes.
        limits, alone, fount: by layout; empty where the plan needs none.
        replicas: a gateway with two TorchServe processes, or None.
        numerics: numerics ids, by threads.
        windows: all measured windows, to report disturbances.
    """

    plan: Plan
    precision: Precision
    clients: list[Child]
    limits: dict[Layout, Limit] = field(default_factory=dict)
    alone: dict[Layout, Server] = field(default_factory=dict)
    fount: dict[Layout, Server] = field(default_factory=dict)
    replicas: Server | None = None
    numerics: dict[int, str] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)

    def servers(self) -> list[Server]:
        """List the running servers."""
        return [*self.alone.values(), *self.fount.values(), *([self.replicas] if self.replicas else [])]

    def load(self, server: Server, seconds: float, *loads: Load, ramp_s: float | None = None) -> Window:
        """Put a load on one server, one `Load` for each client process, and measure a window after the ramp.

        Raises:
            ChildError: a client received an error.
        """
        start = time.monotonic() + _LEAD_S
        begin = start + (self.plan.ramp_s if ramp_s is None else ramp_s)
        end = begin + seconds
        clients = self.clients[: len(loads)]
        for client, load in zip(clients, loads, strict=True):
            client.send(asdict(replace(load, server=server.url, begin=start, end=end)))
        time.sleep(max(0.0, begin - time.monotonic()))
        before, called = self._clock(server, clients), read_calls(server.metrics)
        time.sleep(max(0.0, end - time.monotonic()))
        after, calls = self._clock(server, clients), read_calls(server.metrics).since(called)
        seen = [_read_observations(client.receive()) for client in clients]
        window = _window((begin, end), seen, before, after, calls)
        self.windows.append(window)
        return window

    def run_to_end(self, server: Server, load: Load) -> Observations:
        """Put a load on one server through the first client, and wait for its end."""
        now = replace(load, server=server.url, begin=time.monotonic())
        return _read_observations(self.clients[0].call(asdict(now)))

    def _clock(self, server: Server, clients: Sequence[Child]) -> dict[str, float]:
        others = [each for each in self.servers() if each.roles is not server.roles]
        client_processes = [psutil.Process(client.pid) for client in clients]
        return {
            **server.cpu_by_role(),
            "client": cpu_s(client_processes),
            "idle": sum(sum(each.cpu_by_role().values()) for each in others),
            "busy": busy_cpu_s(),
            "own": cpu_s([psutil.Process()]),
        }


@contextmanager
def open_testbed(plan: Plan, precision: Precision, folder: Path) -> Iterator[Testbed]:
    """Start everything the plan needs in one precision, and end it with the block.

    Args:
        plan: of the run.
        precision: of the workers.
        folder: of archives and profiles, kept between runs.

    Raises:
        StartError: a server did not start.
        ChildError: packing or a limit failed.
    """
    packed, state = folder / precision, folder / "state"
    _pack(precision, packed)
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        testbed = Testbed(plan=plan, precision=precision, clients=[])
        for layout in plan.layouts:  # before the servers: a missing profile is measured here
            _start_limit(stack, testbed, layout, packed, state)
        testbed.clients = [stack.enter_context(Child("benchmarks.client")) for _ in range(_CLIENTS)]
        for client in testbed.clients:
            client.receive()
        _start_servers(stack, testbed, list(_planned_servers(plan, precision, packed, state)))
        yield testbed


def _planned_servers(
    plan: Plan, precision: Precision, packed: Path, state: Path
) -> Iterator[tuple[str, Layout, AbstractContextManager[Server]]]:
    """List the kind, layout and start of each server."""
    workloads, archives = set(plan.workloads_in(precision)), packed / "archives"
    for layout in plan.layouts:
        if workloads & {"small", "single"}:
            yield "alone", layout, torchserve_alone(archives, packed / "alone", state, layout, precision)
        if workloads - {"replicas"}:
            yield "fount", layout, fount_serve(archives, state, layout, precision)
    if "replicas" in workloads:
        yield "replicas", _REPLICAS, gateway_with_two_torchserves(archives, state, precision)


def _start_servers(
    stack: ExitStack, testbed: Testbed, starts: Sequence[tuple[str, Layout, AbstractContextManager[Server]]]
) -> None:
    """Start all servers in parallel: each waits most of the time."""
    with ThreadPoolExecutor(len(starts) or 1) as pool:
        started = [pool.submit(stack.enter_context, each) for _, _, each in starts]
    for (kind, layout, _), future in zip(starts, started, strict=True):
        server = future.result()
        match kind:
            case "alone":
                testbed.alone[layout] = server
            case "fount":
                testbed.fount[layout] = server
            case _:
                testbed.replicas = server


def _pack(precision: Precision, out: Path) -> None:
    """Pack in another process, so that this one does not load torch."""
    command = [sys.executable, "-m", "benchmarks.models", precision, str(out)]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        raise ChildError(f"packing for {precision} failed; its traceback is above")


def _start_limit(stack: ExitStack, testbed: Testbed, layout: Layout, packed: Path, state: Path) -> None:
    environment = worker_environment(packed / "archives", state, layout, testbed.precision)
    children = []
    for _ in range(layout.workers):
        child = stack.enter_context(Child("benchmarks.limit", str(packed / "unpacked"), environment=environment))
        testbed.numerics[layout.threads] = child.receive()["numerics"]  # in sequence: the first measures a profile
        children.append(child)
    limit = Limit(children=children)
    trials = children[0].call({"choose": max(_MIN_TRIAL_S, testbed.plan.limit_s / 4)})["sizes"]
    for size, rate, cpu_seconds in trials:
        limit.by_size[size], limit.cpu_s_by_batch[size] = rate, cpu_seconds
    limit.sizes = tuple(sorted(limit.by_size, key=limit.by_size.__getitem__, reverse=True)[:2])
    testbed.limits[layout] = limit


def check_bytes(testbed: Testbed) -> None:
    """Compare the bytes of the same samples from the limit, TorchServe and Fount, in each layout.

    Numerics depend on the thread count, so layouts are compared separately.

    Raises:
        ChildError: bytes differ, so that speeds are not comparable.
    """
    load = Load(kind="digest", server="", requests=_DRAWS, seed=1)
    for layout, limit in testbed.limits.items():
        digests = {"limit": str(limit.children[0].call({"draw": _DRAWS})["digest"])}
        if layout in testbed.alone:
            digests["TorchServe"] = testbed.run_to_end(testbed.alone[layout], load).digest
        if layout in testbed.fount:
            server = testbed.fount[layout]
            digests["Fount"] = testbed.run_to_end(server, load).digest
            digests["Fount, generated stubs"] = testbed.run_to_end(through_stubs(server), load).digest
        if len(set(digests.values())) > 1:
            listed = ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())
            raise ChildError(f"different bytes for the same addresses with {layout} workers × threads: {listed}")


def _window(
    between: tuple[float, float],
    seen: Sequence[Observations],
    before: Mapping[str, float],
    after: Mapping[str, float],
    calls: Calls,
) -> Window:
    begin, end = between
    used = {role: after[role] - before[role] for role in after}
    busy, idle, own = (used.pop(role) for role in ("busy", "idle", "own"))
    unrelated = busy - idle - own - sum(used.values())
    return Window(
        begin=begin,
        end=end,
        seen=seen,
        cpu_s=used,
        calls=calls,
        idle_share=idle / (end - begin),
        unrelated_share=max(0.0, unrelated / (end - begin)),
    )


def _read_observations(result: Mapping[str, Any]) -> Observations:
    requests = [(start, end) for start, end in result["requests"]]
    arrivals = [(before, at, samples) for before, at, samples in result["arrivals"]]
    return Observations(requests=requests, arrivals=arrivals, firsts=result["firsts"], digest=result["digest"])
