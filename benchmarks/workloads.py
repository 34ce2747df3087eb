"""The workloads: each puts its load on every contender once and gives a record of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.loads import Load, percentile, samples_within
from benchmarks.model_cpu import model_cpu_s
from benchmarks.plan import Layout
from benchmarks.processes import Server, through_stubs
from benchmarks.records import Record
from benchmarks.stand import Limit, Stand, Window

__all__ = ["measure_limit", "measure_round", "warm_up"]

_LOOK_S = 0.1
_MILLION = 1_000_000
_PACED_EVERY_S = 0.05
_MB = 1e6
_CPU_OF = ("bulk", "medium", "small", "single")


def measure_limit(stand: Stand, number: int) -> Iterator[Record]:
    """What the cores give without a server, for each way to fill them: the better of two batch sizes counts."""
    for layout, limit in stand.limits.items():
        each = [_limit_window(stand, limit, size) for size in limit.sizes]
        best = max(each, key=lambda values: values["samples_per_s"])
        yield _record(stand, number, "limit", "limit", layout, best)


def _limit_window(stand: Stand, limit: Limit, size: int) -> dict[str, float]:
    begin = time.monotonic() + _LOOK_S
    for child in limit.children:
        child.tell({"size": size, "begin": begin, "end": begin + stand.plan.limit_s})
    told = [child.answer() for child in limit.children]
    samples = sum(each["samples"] for each in told)
    return {
        "samples_per_s": sum(each["samples_per_s"] for each in told),
        "cpu_s_per_1000": 1000 * sum(each["cpu_s"] for each in told) / samples,
        "exec_batch": float(size),
    }


def measure_round(stand: Stand, number: int, say: Callable[[str], None]) -> Iterator[Record]:
    """Every workload of the plan but the limit, in turns of contenders.

    Args:
        stand: what is there.
        number: of the round.
        say: takes progress.
    """
    for workload in stand.plan.workloads_in(stand.precision):
        for contender, layout, server in _contenders(stand, workload):
            say(f"{stand.precision} round {number + 1}: {workload}, {contender} {layout}")
            values = _MEASURES[workload](stand, server, number)
            if workload in _CPU_OF and contender.startswith("fount"):
                values |= _outside_model(stand.limits[layout], stand.windows[-1], values)
            yield _record(stand, number, workload, contender, layout, values)
            time.sleep(stand.plan.settle_s)


def warm_up(stand: Stand, say: Callable[[str], None]) -> None:
    """Load every server for as long as the plan says, with what it is measured with."""
    for server in stand.servers():
        say(f"{stand.precision}: warming {server.url} up for {stand.plan.warm_up_s:g} s")
        seconds = stand.plan.warm_up_s / 2
        stand.load(server, seconds, Load(kind="loop", server="", concurrency=32, seed=99), ramp_s=0.0)
        count = 1 if server.url.startswith("torchserve") else 1024
        stand.load(server, seconds, Load(kind="loop", server="", count=count, concurrency=2, seed=98), ramp_s=0.0)
    stand.windows.clear()


def _contenders(stand: Stand, workload: str) -> Iterator[tuple[str, Layout, Server]]:
    if workload in ("small", "single"):
        yield from (("torchserve", layout, server) for layout, server in stand.alone.items())
        for layout, server in stand.fount.items():
            yield "fount-bare", layout, through_stubs(server)
    if workload == "replicas":
        if stand.replicas is not None:
            yield "fount", Layout(workers=2, threads=1), stand.replicas
        return
    # One layout is enough where Fount is compared with itself: these take minutes.
    fount = list(stand.fount.items())[: 1 if workload in ("interactive", "first-chunk", "scale") else None]
    yield from (("fount", layout, server) for layout, server in fount)


def _throughput(stand: Stand, server: Server, clients: int, count: int) -> dict[str, float]:
    loads = [Load(kind="loop", server="", count=count, seed=k + 1) for k in range(clients)]
    window = stand.load(server, stand.plan.throughput_s, *loads)
    samples = _samples(window)
    return {"samples_per_s": samples / window.seconds} | _cpu(window, samples)


def _bulk(stand: Stand, server: Server, number: int) -> dict[str, float]:
    return _throughput(stand, server, 2, 1024)


def _medium(stand: Stand, server: Server, number: int) -> dict[str, float]:
    return _throughput(stand, server, 4, 64)


def _ones(stand: Stand, server: Server, concurrency: int) -> dict[str, float]:
    window = stand.load(server, stand.plan.latency_s, Load(kind="loop", server="", concurrency=concurrency))
    latencies = window.seen[0].within(window.begin, window.end).latencies_s
    samples = _samples(window)
    return {
        "requests_per_s": samples / window.seconds,
        "p50_ms": 1000 * percentile(latencies, 50),
        "p99_ms": 1000 * percentile(latencies, 99),
        "requests": float(len(latencies)),
    } | _cpu(window, samples)


def _small(stand: Stand, server: Server, number: int) -> dict[str, float]:
    return _ones(stand, server, 32)


def _single(stand: Stand, server: Server, number: int) -> dict[str, float]:
    return _ones(stand, server, 1)


def _interactive(stand: Stand, server: Server, number: int) -> dict[str, float]:
    """The same eight samples every 50 ms, first alone, then while another client pulls a million."""
    requests = stand.plan.paced_requests
    paced = Load(
        kind="paced", server="", count=8, requests=requests, every_s=_PACED_EVERY_S, seed=3, priority="interactive"
    )  # fmt: skip
    pull = Load(kind="loop", server="", count=_MILLION, seed=4, cancels=True, priority="bulk")
    ramp_s = stand.plan.ramp_s
    skipped = int(ramp_s / _PACED_EVERY_S)
    whole = replace(paced, requests=requests + skipped)
    seconds = requests * _PACED_EVERY_S
    idle = stand.load(server, seconds, whole)
    loaded = stand.load(server, seconds + 1.0, whole, pull)  # the pull outlasts the last of them
    idle_s, loaded_s = (each.seen[0].latencies_s[skipped:] for each in (idle, loaded))
    idle_ms, loaded_ms = (1000 * percentile(each, 99) for each in (idle_s, loaded_s))
    pulled = samples_within(loaded.seen[1].arrivals, loaded.begin, loaded.end)
    return {
        "idle_p99_ms": idle_ms,
        "loaded_p99_ms": loaded_ms,
        "growth_ms": loaded_ms - idle_ms,
        "idle_p50_ms": 1000 * percentile(idle_s, 50),
        "loaded_p50_ms": 1000 * percentile(loaded_s, 50),
        "requests": float(len(loaded_s)),
        "pulled_per_s": pulled / loaded.seconds,
    }


def _first_chunk(stand: Stand, server: Server, number: int) -> dict[str, float]:
    load = Load(kind="first_chunks", server="", count=_MILLION, requests=stand.plan.first_chunks, seed=5)
    seen = stand.first_finished(server, load)
    return {
        "first_ms": 1000 * percentile(seen.firsts, 50),
        "whole_256_ms": 1000 * percentile(seen.latencies_s, 50),
        "requests": float(len(seen.firsts)),
    }


def _scale(stand: Stand, server: Server, number: int) -> dict[str, float]:
    """One client alone, one request after the other, by size; the gateway's memory over the largest of them."""
    values: dict[str, float] = {}
    sizes = list(stand.plan.counts)
    if number == stand.plan.rounds - 1:
        sizes += [(count, 1) for count in stand.plan.whole_counts]
    for count, times in sizes:
        load = Load(kind="stream", server="", count=count, seed=6)
        with _peak_of(server) as growth:
            seconds = [stand.first_finished(server, load).latencies_s[0] for _ in range(times)]
        values[f"us_per_sample_{count}"] = 1e6 * percentile(seconds, 50) / count
    return values | {"gateway_growth_mb": growth["bytes"] / _MB}


@contextmanager
def _peak_of(server: Server) -> Iterator[dict[str, int]]:
    """Look at the gateway's memory until the block ends; "bytes" is the most it grew by."""
    before, growth, done = server.gateway_bytes(), {"bytes": 0}, threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_S):
            growth["bytes"] = max(growth["bytes"], server.gateway_bytes() - before)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield growth
    finally:
        done.set()
        looking.join()


def _replicas(stand: Stand, server: Server, number: int) -> dict[str, float]:
    """How two TorchServe processes share: CPU-seconds of their workers, which do nothing but samples."""
    loads = [Load(kind="loop", server="", count=64, concurrency=2, seed=k + 11) for k in range(4)]
    window = stand.load(server, stand.plan.throughput_s, *loads)
    first, second = window.cpu_s["worker 1"], window.cpu_s["worker 2"]
    return {
        "first_share": first / (first + second),
        "busier_over_other": max(first, second) / min(first, second),
        "samples_per_s": _samples(window) / window.seconds,
    }


_MEASURES: Mapping[str, Callable[[Stand, Server, int], dict[str, float]]] = {
    "bulk": _bulk, "medium": _medium, "small": _small, "single": _single, "interactive": _interactive,
    "first-chunk": _first_chunk, "scale": _scale, "replicas": _replicas,
}  # fmt: skip


def _samples(window: Window) -> float:
    return sum(samples_within(seen.arrivals, window.begin, window.end) for seen in window.seen)


def _cpu(window: Window, samples: float) -> dict[str, float]:
    return {f"{role}_cpu_s_per_1000": 1000 * seconds / samples for role, seconds in window.cpu_s.items()}


def _outside_model(limit: Limit, window: Window, values: Mapping[str, float]) -> dict[str, float]:
    """A worker's CPU beside what the batches it executed take without a server, with as many threads."""
    model = 1000 * model_cpu_s(window.calls, limit.cpu_s_by_batch) / _samples(window)
    outside = max(0.0, values["worker_cpu_s_per_1000"] - model)
    return {"worker_outside_model_cpu_s_per_1000": outside, "model_cpu_s_per_1000": model}


def _record(
    stand: Stand, number: int, workload: str, contender: str, layout: Layout, values: Mapping[str, float]
) -> Record:
    return Record(
        round=number, precision=stand.precision, workload=workload, contender=contender, layout=str(layout),
        values=values,
    )  # fmt: skip
