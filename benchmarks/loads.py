"""Loads for client processes, and the observations they return.

Times are those of `time.monotonic()`, which on Linux is one clock for all processes. A request's samples count as if
they arrived evenly between one arrival and the next, so that requests across the edge of a window count in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Load", "Observations", "percentile", "samples_within"]

Kind = Literal["loop", "paced", "first_chunks", "stream", "images"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """The work of one client process.

    Attributes:
        kind: `loop` sends the next request when a response has arrived; `paced` sends requests at fixed times;
            `first_chunks` alternates between the first chunk of `count` samples and a whole request of 256;
            `stream` draws `count` samples once; `images` draws single samples for their bytes.
        server: "fount://HOST:PORT" (through `fount.client.aio`), "grpc://HOST:PORT" (Fount through generated stubs),
            "torchserve://HOST:PORT", or "PEER://HOST:PORT".
        count: samples of one request.
        concurrency: loops in this process.
        seed: of every request; indices continue from one to the next.
        begin, end: when to start, and when a loop sends no more requests.
        cancels: whether requests that run at the end are cancelled instead of awaited.
        requests: number of requests of `paced`, `first_chunks` and `images`.
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
class Observations:
    """The observations of one client process.

    Attributes:
        requests: (start, end) of each completed request; the start of `paced` is when it was due.
        arrivals: (time of the arrival before it, time, samples).
        firsts: seconds to each first chunk, for `first_chunks`.
        images: all bytes in hexadecimal, for `images`.
    """

    requests: Sequence[tuple[float, float]] = ()
    arrivals: Sequence[tuple[float, float, int]] = ()
    firsts: Sequence[float] = ()
    images: str = ""

    @property
    def latencies_s(self) -> list[float]:
        """Seconds of each request."""
        return [end - begin for begin, end in self.requests]

    def within(self, begin: float, end: float) -> Observations:
        """Keep the requests within a window; all arrivals are kept for `samples_within`."""
        requests = [each for each in self.requests if begin <= each[0] and each[1] <= end]
        return Observations(requests=requests, arrivals=self.arrivals, firsts=self.firsts)


def samples_within(arrivals: Iterable[tuple[float, float, int]], begin: float, end: float) -> float:
    """Count the samples that arrived in a window; an arrival across its edge counts in proportion."""
    total = 0.0
    for before, at, samples in arrivals:
        overlap = min(at, end) - max(before, begin)
        if overlap > 0:
            total += samples * overlap / (at - before)
    return total


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Compute a percentile; NaN without values."""
    return float(np.percentile(seconds, percent)) if len(seconds) else float("nan")
