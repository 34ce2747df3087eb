"""The workloads: each puts its load on every contender once, and yields one record for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.loads import Load, percentile, samples_within
from benchmarks.model_cpu import model_cpu_s
from benchmarks.peers.servers import PEERS, PeerSetting
from benchmarks.plan import OTHERS_WORKLOADS, Layout
from benchmarks.processes import Server, through_stubs
from benchmarks.records import Record
from benchmarks.testbed import Limit, Testbed, Window

__all__ = ["measure_limit", "measure_round", "warm_up"]

_POLL_S = 0.1
_MILLION = 1_000_000
_PACED_EVERY_S = 0.05
_MB = 1e6
_PEER_WARM_UP = 0.3  # of the time of the others, whose Java compiles


def measure_limit(testbed: Testbed, number: int) -> Iterator[Record]:
    """Measure the rate without a server in each layout, with the better of two batch sizes."""
    for layout, limit in testbed.limits.items():
        each = [_limit_window(testbed, limit, size) for size in limit.sizes]
        best = max(each, key=lambda values: values["samples_per_s"])
        yield _record(testbed, number, "limit", "limit", layout, best)


def _limit_window(testbed: Testbed, limit: Limit, size: int) -> dict[str, float]:
    begin = time.monotonic() + _POLL_S
    for child in limit.children:
        child.send({"size": size, "begin": begin, "end": begin + testbed.plan.limit_s})
    results = [child.receive() for child in limit.children]
    samples = sum(each["samples"] for each in results)
    return {
        "samples_per_s": sum(each["samples_per_s"] for each in results),
        "cpu_s_per_1000": 1000 * sum(each["cpu_s"] for each in results) / samples,
        "exec_batch": float(size),
    }


def measure_round(testbed: Testbed, number: int, log: Callable[[str], None]) -> Iterator[Record]:
    """Measure every workload of the plan but the limit, with contenders interleaved.

    Args:
        testbed: the running processes.
        number: of the round.
        log: called with progress messages.
    """
    for workload in testbed.plan.workloads_in(testbed.precision):
        for contender, layout, server in _contenders(testbed, workload):
            log(f"{testbed.precision} round {number + 1}: {workload}, {contender} {layout}")
            values = _MEASURES[workload](testbed, server, number)
            if workload in OTHERS_WORKLOADS and isinstance(layout, Layout) and contender.startswith("fount"):
                values |= _outside_model(testbed.limits[layout], testbed.windows[-1], values)
            yield _record(testbed, number, workload, contender, layout, values)
            time.sleep(testbed.plan.pause_s)


def warm_up(testbed: Testbed, log: Callable[[str], None]) -> None:
    """Load every server with its measured requests for the plan's time."""
    peers = list(testbed.peers.values())
    for server in testbed.servers():
        log(f"{testbed.precision}: warm-up of {server.url} for {testbed.plan.warm_up_s:g} s")
        seconds = testbed.plan.warm_up_s / 2 * (_PEER_WARM_UP if server in peers else 1.0)
        testbed.load(server, seconds, Load(kind="loop", server="", concurrency=32, seed=99), ramp_s=0.0)
        testbed.load(server, seconds, Load(kind="loop", server="", count=1024, concurrency=2, seed=98), ramp_s=0.0)
    testbed.windows.clear()


def _contenders(testbed: Testbed, workload: str) -> Iterator[tuple[str, Layout | PeerSetting, Server]]:
    if workload in OTHERS_WORKLOADS:
        yield from (("torchserve", layout, server) for layout, server in testbed.alone.items())
        for setting, server in testbed.peers.items():
            if setting.wait_ms == PEERS[setting.name].waits_ms[workload]:
                yield setting.name, setting, server
    if workload in ("small", "single"):
        for layout, server in testbed.fount.items():
            yield "fount-bare", layout, through_stubs(server)
    if workload == "replicas":
        if testbed.replicas is not None:
            yield "fount", Layout(workers=2, threads=1), testbed.replicas
        return
    # Fount is compared with itself in one layout only, since these workloads take minutes.
    fount = list(testbed.fount.items())[: 1 if workload in ("interactive", "first-chunk", "scale") else None]
    yield from (("fount", layout, server) for layout, server in fount)


def _throughput(testbed: Testbed, server: Server, clients: int, count: int) -> dict[str, float]:
    loads = [Load(kind="loop", server="", count=count, seed=k + 1) for k in range(clients)]
    window = testbed.load(server, testbed.plan.throughput_s, *loads)
    samples = _samples(window)
    return {"samples_per_s": samples / window.seconds} | _cpu(window, samples)


def _bulk(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    return _throughput(testbed, server, 2, 1024)


def _medium(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    return _throughput(testbed, server, 4, 64)


def _ones(testbed: Testbed, server: Server, concurrency: int) -> dict[str, float]:
    window = testbed.load(server, testbed.plan.latency_s, Load(kind="loop", server="", concurrency=concurrency))
    latencies = window.seen[0].within(window.begin, window.end).latencies_s
    samples = _samples(window)
    return {
        "requests_per_s": samples / window.seconds,
        "p50_ms": 1000 * percentile(latencies, 50),
        "p99_ms": 1000 * percentile(latencies, 99),
        "requests": float(len(latencies)),
    } | _cpu(window, samples)


def _small(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    return _ones(testbed, server, 32)


def _single(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    return _ones(testbed, server, 1)


def _interactive(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    """Request eight samples every 50 ms, first alone, then while another client pulls a million."""
    requests = testbed.plan.paced_requests
    paced = Load(
        kind="paced", server="", count=8, requests=requests, every_s=_PACED_EVERY_S, seed=3, priority="interactive"
    )  # fmt: skip
    pull = Load(kind="loop", server="", count=_MILLION, seed=4, cancels=True, priority="bulk")
    ramp_s = testbed.plan.ramp_s
    skipped = int(ramp_s / _PACED_EVERY_S)
    whole = replace(paced, requests=requests + skipped)
    seconds = requests * _PACED_EVERY_S
    idle = testbed.load(server, seconds, whole)
    loaded = testbed.load(server, seconds + 1.0, whole, pull)  # the pull runs longer than the last request
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


def _first_chunk(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    load = Load(kind="first_chunks", server="", count=_MILLION, requests=testbed.plan.first_chunks, seed=5)
    seen = testbed.run_to_end(server, load)
    return {
        "first_ms": 1000 * percentile(seen.firsts, 50),
        "whole_256_ms": 1000 * percentile(seen.latencies_s, 50),
        "requests": float(len(seen.firsts)),
    }


def _scale(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    """Measure requests of several sizes one after the other, and the growth of the gateway's memory."""
    values: dict[str, float] = {}
    sizes = list(testbed.plan.counts)
    if number == testbed.plan.rounds - 1:
        sizes += [(count, 1) for count in testbed.plan.final_counts]
    for count, times in sizes:
        load = Load(kind="stream", server="", count=count, seed=6)
        with _peak_of(server) as growth:
            seconds = [testbed.run_to_end(server, load).latencies_s[0] for _ in range(times)]
        values[f"us_per_sample_{count}"] = 1e6 * percentile(seconds, 50) / count
    return values | {"gateway_growth_mb": growth["bytes"] / _MB}


@contextmanager
def _peak_of(server: Server) -> Iterator[dict[str, int]]:
    """Poll the gateway's memory until the block ends; "bytes" is its largest growth."""
    before, growth, done = server.gateway_bytes(), {"bytes": 0}, threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_S):
            growth["bytes"] = max(growth["bytes"], server.gateway_bytes() - before)

    polling = threading.Thread(target=poll, daemon=True)
    polling.start()
    try:
        yield growth
    finally:
        done.set()
        polling.join()


def _replicas(testbed: Testbed, server: Server, number: int) -> dict[str, float]:
    """Compare the CPU-seconds of the workers of two TorchServe processes."""
    loads = [Load(kind="loop", server="", count=64, concurrency=2, seed=k + 11) for k in range(4)]
    window = testbed.load(server, testbed.plan.throughput_s, *loads)
    first, second = window.cpu_s["worker 1"], window.cpu_s["worker 2"]
    return {
        "first_share": first / (first + second),
        "busier_over_other": max(first, second) / min(first, second),
        "samples_per_s": _samples(window) / window.seconds,
    }


_MEASURES: Mapping[str, Callable[[Testbed, Server, int], dict[str, float]]] = {
    "bulk": _bulk, "medium": _medium, "small": _small, "single": _single, "interactive": _interactive,
    "first-chunk": _first_chunk, "scale": _scale, "replicas": _replicas,
}  # fmt: skip


def _samples(window: Window) -> float:
    return sum(samples_within(seen.arrivals, window.begin, window.end) for seen in window.seen)


def _cpu(window: Window, samples: float) -> dict[str, float]:
    return {f"{role}_cpu_s_per_1000": 1000 * seconds / samples for role, seconds in window.cpu_s.items()}


def _outside_model(limit: Limit, window: Window, values: Mapping[str, float]) -> dict[str, float]:
    """Compute a worker's CPU time beyond that of its executed batches without a server, with as many threads."""
    model = 1000 * model_cpu_s(window.calls, limit.cpu_s_by_batch) / _samples(window)
    outside = max(0.0, values["worker_cpu_s_per_1000"] - model)
    return {"worker_outside_model_cpu_s_per_1000": outside, "model_cpu_s_per_1000": model}


def _record(
    testbed: Testbed,
    number: int,
    workload: str,
    contender: str,
    layout: Layout | PeerSetting,
    values: Mapping[str, float],
) -> Record:
    return Record(
        round=number, precision=testbed.precision, workload=workload, contender=contender, layout=str(layout),
        values=values,
    )  # fmt: skip
