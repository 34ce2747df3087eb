"""The pool of `fount serve`: TorchServe processes of the gateway's own, started, supervised and stopped with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from service.domain import Call, ModelState, Reply, Target
from service.errors import NotReady, SetupError
from service.workers import Offer
from service.workers.torchserve.channel import Address
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.process import TorchServeProcess

__all__ = ["EmbeddedPool", "Supervisor"]

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_UNRESPONSIVE_S = 60.0  # a process whose management does not answer for so long is stuck
_HEALTHY_S = 60.0  # a process that ran for so long is restarted without a pause
_MAX_PAUSE_S = 30.0
_REASON = "TorchServe was restarted; workers are loading"


class EmbeddedPool:
    """One or more TorchServe processes, and the pool over them.

    Args:
        configs: one for each process.
        refused: models that have no archive; listed unless a process serves them.
    """

    def __init__(self, *configs: TorchServeConfig, refused: Sequence[Offer] = ()) -> None:
        self._not_packed = tuple(refused)
        self.processes = [TorchServeProcess(config) for config in configs]
        self._pool: TorchServePool | None = None
        self._watchers: list[Callable[[], None]] = []
        self._supervisors: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every process, and begin to probe its workers.

        Raises:
            SetupError: a process cannot be started.
        """
        self._pool = TorchServePool([await process.start() for process in self.processes])
        for changed in self._watchers:
            self._pool.watch(changed)
        await self._pool.start()
        for index, process in enumerate(self.processes):
            supervisor = Supervisor(process, self._pool, index)
            self._supervisors.append(asyncio.get_running_loop().create_task(supervisor.run()))

    async def close(self) -> None:
        """End every process and remove its folder."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)  # a start in progress is undone
        if self._pool:
            await self._pool.close()
        await asyncio.gather(*(process.stop() for process in self.processes))

    def offers(self) -> tuple[Offer, ...]:
        """Return the offers of workers, of archives that are still to be loaded, and of refused archives."""
        offers = self._pool.offers() if self._pool else ()
        known = {(offer.name, offer.version) for offer in offers}
        return (*offers, *(offer for offer in self._without_worker() if (offer.name, offer.version) not in known))

    def is_discovered(self) -> bool:
        """Whether every process has reported its models at least once."""
        return self._pool is not None and self._pool.is_discovered()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever offers or capacity may have changed."""
        self._watchers.append(changed)
        if self._pool:
            self._pool.watch(changed)

    def workers(self, target: Target) -> int:
        """Return how many ready workers a target has now."""
        return self._pool.workers(target) if self._pool else 0

    def capacity(self, target: Target) -> int:
        """Return how many more calls its workers accept now; see `WorkerPool.capacity`."""
        return self._pool.capacity(target) if self._pool else 0

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Execute a call on one worker; see `WorkerPool.call`."""
        if self._pool is None:
            raise NotReady("TorchServe is starting")
        return await self._pool.call(call, timeout_s=timeout_s)

    def _without_worker(self) -> list[Offer]:
        """List models as archives name them; the file of an unusable archive is `<name>-<version>.mar`."""
        launches = [process.launch for process in self.processes if process.launch]
        offers = [
            Offer(name=archive.name, version=archive.version, reason="TorchServe is starting")
            for launch in launches
            for archive in launch.archives
        ]
        offers += self._not_packed
        for path, reason in (pair for launch in launches for pair in launch.refused.items()):
            name, _, version = path.stem.rpartition("-")
            if name:
                offers.append(Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))
        return offers


class Supervisor:
    """Restarts one process that has been started, when it ends or stops answering.

    Args:
        process: to be kept running.
        pool: calls it.
        index: of its address in the pool.
    """

    def __init__(self, process: TorchServeProcess, pool: TorchServePool, index: int) -> None:
        self._process = process
        self._pool = pool
        self._index = index
        self._failures = 0

    async def run(self) -> None:
        """Restart the process whenever necessary, until cancelled; the canceller stops the process."""
        while True:
            started_s = time.monotonic()
            problem = await self._wait_for_problem()
            if time.monotonic() - started_s >= _HEALTHY_S:
                self._failures = 0
            _log.error("TorchServe %s and is restarted; the end of its log:\n%s", problem, self._process.log_tail(),
                       extra={"action": "torchserve_restarted"})  # fmt: skip
            try:
                await self._pool.retire(self._index, _REASON)
            except Exception:  # noqa: BLE001  # an error of the pool's watchers must not prevent the restart
                _log.exception("disconnecting from a TorchServe failed")
            self._pool.replace(self._index, await self._restart())

    async def _wait_for_problem(self) -> str:
        while self._process.is_running:
            if self._pool.unresponsive_s(self._index) > _UNRESPONSIVE_S:
                return f"has not answered for {_UNRESPONSIVE_S:g} s"
            await asyncio.sleep(_POLL_S)
        return "ended"

    async def _restart(self) -> Address:
        while True:
            try:
                await self._process.stop(grace_s=0)  # ends its workers, which outlive the Java process
                await asyncio.sleep(_pause_s(self._failures))
                self._failures += 1
                return await self._process.start()
            except SetupError as error:
                _log.error("TorchServe cannot be restarted yet: %s", error)
            except Exception:  # noqa: BLE001  # a full disk, for example, may be temporary
                _log.exception("TorchServe cannot be restarted yet")


def _pause_s(failures: int) -> float:
    """0, 1, 2, 4, … s."""
    return min(_MAX_PAUSE_S, 2.0 ** min(failures - 1, 10)) if failures else 0.0
