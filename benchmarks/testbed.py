"""The testbed: all servers, limits and client processes of one precision, running together and loaded one at a time.

`open_testbed` starts it, `check_bytes` proves that its servers are comparable, and `workloads` puts loads on it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.child import ROOT, Child, ChildError
from benchmarks.fount_servers import fount_serve, gateway_with_two_torchserves
from benchmarks.loads import Load, Observations
from benchmarks.model_cpu import Calls, read_calls
from benchmarks.peers.servers import PeerSetting, install_peers, peer_server, peer_settings
from benchmarks.plan import OTHERS_WORKLOADS, Layout, Plan, Precision
from benchmarks.processes import Server, busy_cpu_s, cpu_s, through_stubs
from benchmarks.torchserve_alone import torchserve_alone, worker_environment

__all__ = ["Limit", "Testbed", "Window", "check_bytes", "open_testbed"]

_LEAD_S = 0.1  # from sending a load to clients until it starts
_CLIENTS = 4
_MIN_TRIAL_S = 0.3  # of one batch size of the limit
_DRAWS = 16  # samples whose bytes are compared
_MAX_LEVELS, _MAX_SHARE = 1, 0.01  # by which other numerics may differ
_OF_FOUNT = "folded"  # the variant that workers run by default
_VARIANTS = {
    "eager": {"FOUNT_WORKER_FOLDED": "0"},
    "folded": {"FOUNT_WORKER_FOLDED": "1"},
    "compiled": {"FOUNT_WORKER_FOLDED": "1", "FOUNT_WORKER_COMPILED": "1"},
}
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
        children: one for each worker, of the variant with the highest rate.
        variant: its name.
        sizes: its two batch sizes with the highest rate.
        by_size: samples/s of one process alone, by variant and batch size.
        cpu_s_by_batch: CPU-seconds of one batch of Fount's variant, by batch size.
        images: bytes of the same samples, by variant.
    """

    children: list[Child]
    variant: str
    sizes: tuple[int, ...]
    by_size: Mapping[str, Mapping[int, float]]
    cpu_s_by_batch: Mapping[int, float]
    images: Mapping[str, bytes]


@dataclass(kw_only=True)
class Testbed:
    """The running processes of one precision.

    Attributes:
        plan: of the run.
        precision: of all processes.
        clients: client processes.
        limits, alone, fount: by layout; empty where the plan needs none.
        peers: by setting; empty where they are not installed.
        replicas: a gateway with two TorchServe processes, or None.
        differences: of the bytes of other servers and variants from Fount's: largest level, and share of pixels.
        numerics: numerics ids, by threads.
        windows: all measured windows, to report disturbances.
    """

    plan: Plan
    precision: Precision
    clients: list[Child]
    limits: dict[Layout, Limit] = field(default_factory=dict)
    alone: dict[Layout, Server] = field(default_factory=dict)
    fount: dict[Layout, Server] = field(default_factory=dict)
    peers: dict[PeerSetting, Server] = field(default_factory=dict)
    replicas: Server | None = None
    differences: dict[str, tuple[int, float]] = field(default_factory=dict)
    numerics: dict[int, str] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)

    def servers(self) -> list[Server]:
        """List the running servers."""
        servers = [*self.alone.values(), *self.peers.values(), *self.fount.values()]
        return servers + ([self.replicas] if self.replicas else [])

    def load(self, server: Server, seconds: float, *loads: Load, ramp_s: float | None = None) -> Window:
        """Put a load on one server, one `Load` for each client process, and measure a window after the ramp.

        Raises:
            ChildError: a client received an error.
        """
        with server.running():
            window = self._load(server, seconds, loads, self.plan.ramp_s if ramp_s is None else ramp_s)
        self.windows.append(window)
        return window

    def _load(self, server: Server, seconds: float, loads: Sequence[Load], ramp_s: float) -> Window:
        start = time.monotonic() + _LEAD_S
        begin = start + ramp_s
        end = begin + seconds
        clients = self.clients[: len(loads)]
        for client, load in zip(clients, loads, strict=True):
            client.send(asdict(replace(load, server=server.url, begin=start, end=end)))
        time.sleep(max(0.0, begin - time.monotonic()))
        before, called = self._clock(server, clients), read_calls(server.metrics)
        time.sleep(max(0.0, end - time.monotonic()))
        after, calls = self._clock(server, clients), read_calls(server.metrics).since(called)
        seen = [_read_observations(client.receive()) for client in clients]
        return _window((begin, end), seen, before, after, calls)

    def run_to_end(self, server: Server, load: Load) -> Observations:
        """Put a load on one server through the first client, and wait for its end."""
        now = replace(load, server=server.url, begin=time.monotonic())
        with server.running():
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
def open_testbed(plan: Plan, precision: Precision, folder: Path, log: Callable[[str], None]) -> Iterator[Testbed]:
    """Start everything the plan needs in one precision, and end it with the block.

    Args:
        plan: of the run.
        precision: of the workers.
        folder: of archives, profiles and the peers' environment, kept between runs.
        log: called with progress messages.

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
        python = install_peers(folder / "peers-venv", log) if plan.peers and plan.has(*OTHERS_WORKLOADS) else None
        planned = [*_planned_servers(plan, precision, packed, state), *_planned_peers(plan, precision, packed, python)]
        _start_servers(stack, testbed, planned)
        for server in testbed.peers.values():
            with server.running():
                pass  # leaves it stopped
        yield testbed


def _planned_servers(
    plan: Plan, precision: Precision, packed: Path, state: Path
) -> Iterator[tuple[str, Layout, AbstractContextManager[Server]]]:
    """List the kind, layout and start of each server."""
    workloads, archives = set(plan.workloads_in(precision)), packed / "archives"
    for layout in plan.layouts:
        if workloads & {*OTHERS_WORKLOADS}:
            yield "alone", layout, torchserve_alone(archives, packed / "alone", state, layout, precision)
        if workloads - {"replicas"}:
            yield "fount", layout, fount_serve(archives, state, layout, precision)
    if "replicas" in workloads:
        yield "replicas", _REPLICAS, gateway_with_two_torchserves(archives, state, precision)


def _planned_peers(
    plan: Plan, precision: Precision, packed: Path, python: Path | None
) -> Iterator[tuple[str, PeerSetting, AbstractContextManager[Server]]]:
    """List the setting and start of each peer; none without their Python."""
    workloads = [each for each in plan.workloads_in(precision) if each in OTHERS_WORKLOADS]
    for setting in peer_settings(plan.layouts, workloads) if python else ():
        environment = worker_environment(packed / "archives", packed / "state", setting.layout, precision)
        log = packed / f"{setting.name}-{setting.layout.workers}-{setting.wait_ms}.log"
        yield "peer", setting, peer_server(setting, python, packed / "unpacked", environment, log)


def _start_servers(
    stack: ExitStack, testbed: Testbed, starts: Sequence[tuple[str, Any, AbstractContextManager[Server]]]
) -> None:
    """Start all servers in parallel: each waits most of the time."""
    with ThreadPoolExecutor(len(starts) or 1) as pool:
        started = [pool.submit(stack.enter_context, each) for _, _, each in starts]
    for (kind, key, _), future in zip(starts, started, strict=True):
        server = future.result()
        match kind:
            case "alone":
                testbed.alone[key] = server
            case "fount":
                testbed.fount[key] = server
            case "peer":
                testbed.peers[key] = server
            case _:
                testbed.replicas = server


def _pack(precision: Precision, out: Path) -> None:
    """Pack in another process, so that this one does not load torch."""
    command = [sys.executable, "-m", "benchmarks.models", precision, str(out)]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        raise ChildError(f"packing for {precision} failed; its traceback is above")


def _start_limit(stack: ExitStack, testbed: Testbed, layout: Layout, packed: Path, state: Path) -> None:
    """Try every variant in one process, and start the other processes of the fastest."""
    common = worker_environment(packed / "archives", state, layout, testbed.precision)
    trials: dict[str, Mapping[int, float]] = {}
    cpu_s, images, tried = dict[int, float](), dict[str, bytes](), dict[str, Child]()
    for variant, settings in _VARIANTS.items():
        child = tried[variant] = stack.enter_context(_limit_child(packed, common | settings))
        numerics = child.receive()["numerics"]  # in sequence: the first measures a profile
        sizes = child.call({"choose": max(_MIN_TRIAL_S, testbed.plan.limit_s / 4)})["sizes"]
        trials[variant] = {size: rate for size, rate, _ in sizes}
        images[variant] = bytes.fromhex(child.call({"draw": _DRAWS})["images"])
        if variant == _OF_FOUNT:
            testbed.numerics[layout.threads] = numerics
            cpu_s = {size: seconds for size, _, seconds in sizes}
    best = max(trials, key=lambda each: max(trials[each].values()))
    for variant, child in tried.items():
        if variant != best:
            child.close()
    others = [stack.enter_context(_limit_child(packed, common | _VARIANTS[best])) for _ in range(layout.workers - 1)]
    for child in others:
        child.receive()
    rates = trials[best]
    testbed.limits[layout] = Limit(
        children=[tried[best], *others], variant=best, sizes=tuple(sorted(rates, key=rates.__getitem__)[-2:]),
        by_size=trials, cpu_s_by_batch=cpu_s, images=images,
    )  # fmt: skip


def _limit_child(packed: Path, environment: Mapping[str, str]) -> Child:
    return Child("benchmarks.limit", str(packed / "unpacked"), environment=environment)


def check_bytes(testbed: Testbed) -> None:
    """Compare the bytes of the same samples from every contender, in each layout.

    Numerics depend on the thread count, so layouts are compared separately. Fount and its variant of the limit must
    give the same bytes; others round differently, and may differ by one level.

    Raises:
        ChildError: bytes differ, so that speeds are not comparable.
    """
    load = Load(kind="images", server="", requests=_DRAWS, seed=1)

    def draw(server: Server) -> bytes:
        return bytes.fromhex(testbed.run_to_end(server, load).images)

    for layout, limit in testbed.limits.items():
        expected = limit.images[_OF_FOUNT]
        same, near = dict[str, bytes](), {f"limit, {variant}": images for variant, images in limit.images.items()}
        if layout in testbed.alone:
            near["TorchServe"] = draw(testbed.alone[layout])
        near |= {
            f"{each.name} ({each})": draw(server) for each, server in testbed.peers.items() if each.layout == layout
        }
        if layout in testbed.fount:
            server = testbed.fount[layout]
            same = {"Fount": draw(server), "Fount, generated stubs": draw(through_stubs(server))}
        wrong = [name for name, images in same.items() if images != expected]
        for name, images in near.items():
            levels, share = testbed.differences[f"{name}, {layout}"] = _compare(images, expected)
            wrong += [name] if levels > _MAX_LEVELS or share > _MAX_SHARE else []
        if wrong:
            raise ChildError(
                f"different bytes for the same addresses with {layout} workers × threads: {', '.join(wrong)}"
            )


def _compare(images: bytes, expected: bytes) -> tuple[int, float]:
    """Compute the largest difference of a pixel in levels, and the share of pixels that differ."""
    if len(images) != len(expected):
        return 255, 1.0
    levels = np.abs(np.frombuffer(images, np.uint8).astype(np.int16) - np.frombuffer(expected, np.uint8))
    return int(levels.max()), float((levels > 0).mean())


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
    return Observations(requests=requests, arrivals=arrivals, firsts=result["firsts"], images=result["images"])
