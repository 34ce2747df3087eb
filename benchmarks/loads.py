"""Loads: what a client process is told to do, and what is read off what it saw.

Times are those of `time.monotonic()`, which on Linux is one clock for every process. A request's samples count as if
they came evenly between one arrival and the next, so that a window's edges do not cut whole requests in or out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Load", "Seen", "percentile", "samples_within"]

Kind = Literal["loop", "paced", "first_chunks", "stream", "digest"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """One client process's work.

    Attributes:
        kind: `loop` asks again as soon as an answer came; `paced` asks at fixed times, whether answers came or not;
            `first_chunks` waits for the first chunk of `count` samples and for a whole request of 256, in turns;
            `stream` draws `count` samples once; `digest` draws single samples for their bytes.
        server: "fount://HOST:PORT" (through `fount.client.aio`), "grpc://HOST:PORT" (Fount through generated stubs) or
            "torchserve://HOST:PORT".
        count: samples of one request.
        concurrency: loops in this process.
        seed: of every request; indices go on from one to the next.
        begin, end: when to start, and when a loop asks no more.
        cancels: whether what runs at the end is cancelled rather than awaited.
        requests: how many, of `paced`, `first_chunks` and `digest`.
        every_s: time between two of `paced`.
        priority: "bulk" or "interactive"; None leaves it unset.
    """

    kind: Kind
    server: str
    count: int = 1
    concurrency: int = 1
    seed: int = 1
    begin: float = 0.0
    end: float = 0.0
    cancels: bool = False
    requests: int = 0
    every_s: float = 0.0
    priority: Literal["bulk", "interactive"] | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one client process saw.

    Attributes:
        requests: (begun, ended) of each request that was answered whole; of `paced`, begun is when it was due.
        arrivals: (time of the arrival before it, time, samples).
        firsts: seconds to each first chunk; `first_chunks` alone.
        digest: SHA-256 of all bytes; `digest` alone.
    """

    requests: Sequence[tuple[float, float]] = ()
    arrivals: Sequence[tuple[float, float, int]] = ()
    firsts: Sequence[float] = ()
    digest: str = ""

    @property
    def latencies_s(self) -> list[float]:
        """Seconds of each request."""
        return [end - begin for begin, end in self.requests]

    def within(self, begin: float, end: float) -> Seen:
        """Keep the requests that began and ended in a window; arrivals stay, since they are cut by `samples_within`."""
        requests = [each for each in self.requests if begin <= each[0] and each[1] <= end]
        return Seen(requests=requests, arrivals=self.arrivals, firsts=self.firsts)


def samples_within(arrivals: Iterable[tuple[float, float, int]], begin: float, end: float) -> float:
    """Samples that came in a window, those of an arrival that reaches across its edge in proportion."""
    total = 0.0
    for before, at, samples in arrivals:
        overlap = min(at, end) - max(before, begin)
        if overlap > 0:
            total += samples * overlap / (at - before)
    return total


def percentile(seconds: Sequence[float], percent: float) -> float:
    """A percentile; not a number when there is nothing."""
    return float(np.percentile(seconds, percent)) if len(seconds) else float("nan")
