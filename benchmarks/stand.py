"""The stand: every server, limit and client process of one precision, up at once and loaded one at a time.

`opening` builds it; `workloads` puts loads on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from benchmarks.child import Child
from benchmarks.loads import Load, Seen
from benchmarks.model_cpu import Calls, read_calls
from benchmarks.plan import Layout, Plan, Precision
from benchmarks.processes import Server, busy_cpu_s, cpu_s

__all__ = ["Limit", "Stand", "Window"]

_LEAD_S = 0.1  # from telling clients when to start until they do


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was seen between two moments.

    Attributes:
        begin, end: on the clock of `loads`.
        seen: by client.
        cpu_s: CPU-seconds by role of the loaded server, "client" among them.
        calls: worker calls of its gateway.
        idle_share: cores that the other servers took.
        strange_share: cores that whatever is not of this benchmark took.
    """

    begin: float
    end: float
    seen: Sequence[Seen]
    cpu_s: Mapping[str, float]
    calls: Calls
    idle_share: float
    strange_share: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


@dataclass(kw_only=True)
class Limit:
    """The processes of one way to fill the cores without a server.

    Attributes:
        children: one a worker.
        sizes: the two executed batches that gave most samples a second.
        by_size: samples a second of one process alone, by executed batch.
        cpu_s_by_batch: CPU-seconds of one executed batch.
    """

    children: list[Child]
    sizes: tuple[int, ...] = ()
    by_size: dict[int, float] = field(default_factory=dict)
    cpu_s_by_batch: dict[int, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Stand:
    """What is there to be measured.

    Attributes:
        plan: of the run.
        precision: what everything computes in.
        clients: client processes.
        limits, alone, fount: by layout; empty where the plan needs none.
        replicas: a gateway before two TorchServe processes, or None.
        numerics: numerics ids, by threads.
        windows: all that were measured, for what they say of disturbance.
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
        """Every one that is up."""
        return [*self.alone.values(), *self.fount.values(), *([self.replicas] if self.replicas else [])]

    def load(self, server: Server, seconds: float, *loads: Load, ramp_s: float | None = None) -> Window:
        """Put a load on one server, one `Load` a client process, and look at a window after the ramp.

        Raises:
            ChildError: a client met an error: a benchmark of errors is none.
        """
        start = time.monotonic() + _LEAD_S
        begin = start + (self.plan.ramp_s if ramp_s is None else ramp_s)
        end = begin + seconds
        clients = self.clients[: len(loads)]
        for client, load in zip(clients, loads, strict=True):
            client.tell(asdict(replace(load, server=server.url, begin=start, end=end)))
        time.sleep(max(0.0, begin - time.monotonic()))
        before, called = self._clock(server, clients), read_calls(server.metrics)
        time.sleep(max(0.0, end - time.monotonic()))
        after, calls = self._clock(server, clients), read_calls(server.metrics).since(called)
        seen = [_read_seen(client.answer()) for client in clients]
        window = _window((begin, end), seen, before, after, calls)
        self.windows.append(window)
        return window

    def first_finished(self, server: Server, load: Load) -> Seen:
        """Put a load on one server through the first client, and wait for its end, whenever that is."""
        told = replace(load, server=server.url, begin=time.monotonic())
        return _read_seen(self.clients[0].ask(asdict(told)))

    def _clock(self, server: Server, clients: Sequence[Child]) -> dict[str, float]:
        others = [each for each in self.servers() if each.roles is not server.roles]
        ours = [psutil.Process(client.pid) for client in clients]
        return {
            **server.cpu_by_role(),
            "client": cpu_s(ours),
            "idle": sum(sum(each.cpu_by_role().values()) for each in others),
            "busy": busy_cpu_s(),
            "own": cpu_s([psutil.Process()]),
        }


def _window(
    between: tuple[float, float],
    seen: Sequence[Seen],
    before: Mapping[str, float],
    after: Mapping[str, float],
    calls: Calls,
) -> Window:
    begin, end = between
    taken = {role: after[role] - before[role] for role in after}
    busy, idle, own = (taken.pop(role) for role in ("busy", "idle", "own"))
    strange = busy - idle - own - sum(taken.values())
    return Window(
        begin=begin,
        end=end,
        seen=seen,
        cpu_s=taken,
        calls=calls,
        idle_share=idle / (end - begin),
        strange_share=max(0.0, strange / (end - begin)),
    )


def _read_seen(answer: Mapping[str, Any]) -> Seen:
    requests = [(begun, ended) for begun, ended in answer["requests"]]
    arrivals = [(before, at, samples) for before, at, samples in answer["arrivals"]]
    return Seen(requests=requests, arrivals=arrivals, firsts=answer["firsts"], digest=answer["digest"])
