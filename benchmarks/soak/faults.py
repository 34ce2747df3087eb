"""The faults of a soak: workers and TorchServe killed, workers suspended for a while, at seeded random times.

Between two faults there is time to serve, since a soak of a stack that is always down shows nothing.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from benchmarks.soak.report import Tally
from benchmarks.soak.stack import Stack

__all__ = ["JAVA", "STOP", "WORKER", "Faults"]

WORKER, JAVA, STOP = "worker killed", "TorchServe killed", "worker stopped"
_POLL_S = 0.5
_MIN_S = 3.0
_RECOVERY_S = 120.0


@dataclass(kw_only=True)
class Faults:
    """Injects faults into a stack.

    Attributes:
        stack: the stack.
        tally: records every fault and recovery.
        rng: determines the faults.
        worker_s, java_s, stop_s: mean seconds between faults of a kind.
        stopped_s: longest suspension of a worker.
    """

    stack: Stack
    tally: Tally
    rng: random.Random
    worker_s: float = 15.0
    java_s: float = 75.0
    stop_s: float = 20.0
    stopped_s: float = 6.0
    _watches: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Inject faults until `stop` is set, then wait for the recovery from the last."""
        kinds = [(self.worker_s, self._kill_worker), (self.java_s, self._kill_java), (self.stop_s, self._stop_worker)]
        makers = [asyncio.create_task(self._repeat(mean_s, fault)) for mean_s, fault in kinds]
        await stop.wait()
        for maker in makers:
            maker.cancel()
        await asyncio.gather(*makers, return_exceptions=True)
        await asyncio.gather(*self._watches)

    async def _repeat(self, mean_s: float, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(max(_MIN_S, self.rng.expovariate(1 / mean_s)))
            with suppress(psutil.NoSuchProcess):  # another fault has just killed it
                await fault()

    async def _kill_worker(self) -> None:
        if workers := await asyncio.to_thread(self.stack.workers):
            self.rng.choice(workers).kill()
            self._watch(WORKER)

    async def _kill_java(self) -> None:
        if java := await asyncio.to_thread(self.stack.java):
            java.kill()
            self._watch(JAVA)

    async def _stop_worker(self) -> None:
        workers = await asyncio.to_thread(self.stack.workers)
        if not workers:
            return
        worker = self.rng.choice(workers)
        worker.send_signal(signal.SIGSTOP)
        try:
            self.tally.kills[STOP] += 1
            await asyncio.sleep(self.rng.uniform(1.0, self.stopped_s))
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)

    def _watch(self, fault: str) -> None:
        self.tally.kills[fault] += 1
        watch = asyncio.create_task(self._recovery(fault))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _recovery(self, fault: str) -> None:
        """Measure the time until every worker is ready again, including the effect of other faults meanwhile."""
        start, was_down = time.monotonic(), False
        while time.monotonic() - start < _RECOVERY_S:
            complete = await asyncio.to_thread(self.stack.has_all_workers)
            if was_down and complete:
                self.tally.recovered(fault, time.monotonic() - start)
                return
            was_down = was_down or not complete
            await asyncio.sleep(_POLL_S)
        self.tally.violate(f"{fault}, and not every worker is ready again after {_RECOVERY_S:g} s")
