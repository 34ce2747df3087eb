"""The faults of a soak: workers and TorchServe killed, workers stopped for a while, at random but repeatably.

Between two faults there is time to serve: a soak of a stack that is always down shows nothing.
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

from benchmarks.soak_stack import Stack
from benchmarks.soak_tally import Tally

__all__ = ["JAVA", "STOP", "WORKER", "Faults"]

WORKER, JAVA, STOP = "worker killed", "TorchServe killed", "worker stopped"
_LOOK_S = 0.5
_LEAST_S = 3.0
_RECOVERY_S = 120.0


@dataclass(kw_only=True)
class Faults:
    """What is done to a stack.

    Attributes:
        stack: the victim.
        tally: is told of every fault, and of every recovery.
        chance: the random numbers that faults are drawn from.
        worker_s, java_s, stop_s: mean seconds between faults of a kind.
        stopped_s: the longest a worker is stopped.
    """

    stack: Stack
    tally: Tally
    chance: random.Random
    worker_s: float = 15.0
    java_s: float = 75.0
    stop_s: float = 20.0
    stopped_s: float = 6.0
    _watches: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Make faults until told to stop, then wait for the recovery from the last."""
        kinds = [(self.worker_s, self._kill_worker), (self.java_s, self._kill_java), (self.stop_s, self._stop_worker)]
        makers = [asyncio.create_task(self._repeat(mean_s, fault)) for mean_s, fault in kinds]
        await stop.wait()
        for maker in makers:
            maker.cancel()
        await asyncio.gather(*makers, return_exceptions=True)
        await asyncio.gather(*self._watches)

    async def _repeat(self, mean_s: float, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(max(_LEAST_S, self.chance.expovariate(1 / mean_s)))
            with suppress(psutil.NoSuchProcess):  # it had just been killed by another fault
                await fault()

    async def _kill_worker(self) -> None:
        if workers := await asyncio.to_thread(self.stack.workers):
            self.chance.choice(workers).kill()
            self._watch(WORKER)

    async def _kill_java(self) -> None:
        if java := await asyncio.to_thread(self.stack.java):
            java.kill()
            self._watch(JAVA)

    async def _stop_worker(self) -> None:
        workers = await asyncio.to_thread(self.stack.workers)
        if not workers:
            return
        worker = self.chance.choice(workers)
        worker.send_signal(signal.SIGSTOP)
        try:
            self.tally.killed(STOP)
            await asyncio.sleep(self.chance.uniform(1.0, self.stopped_s))
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)

    def _watch(self, what: str) -> None:
        self.tally.killed(what)
        watch = asyncio.create_task(self._recovery(what))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _recovery(self, what: str) -> None:
        """Wait until every worker is ready again; a fault in between makes it longer, and that is counted so."""
        begun, seen = time.monotonic(), False
        while time.monotonic() - begun < _RECOVERY_S:
            whole = await asyncio.to_thread(self.stack.is_whole)
            if seen and whole:
                self.tally.recovered(what, time.monotonic() - begun)
                return
            seen = seen or not whole
            await asyncio.sleep(_LOOK_S)
        self.tally.violate(f"{what}, and not every worker is ready again after {_RECOVERY_S:g} s")
