"""The pool of `fount serve`: TorchServe processes of the gateway's own, started, supervised and stopped with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from service.domain import ModelState
from service.errors import SetupError
from service.workers import Offer
from service.workers.torchserve.channel import Address
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.process import TorchServeProcess
from service.workers.torchserve.replica import Replica

__all__ = ["EmbeddedPool", "Supervisor"]

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_UNRESPONSIVE_S = 60.0  # a process whose management does not answer for so long is stuck
_HEALTHY_S = 60.0  # a process that ran for so long is restarted without a pause
_MAX_PAUSE_S = 30.0
_REASON = "TorchServe was restarted; workers are loading"


class EmbeddedPool(TorchServePool):
    """A pool that starts and stops its TorchServe processes.

    Args:
        configs: one for each process.
        refused: models that have no archive; listed unless a process serves them.
    """

    def __init__(self, *configs: TorchServeConfig, refused: Sequence[Offer] = ()) -> None:
        super().__init__((), direct=all(config.direct for config in configs))
        self._not_packed = tuple(refused)
        self.processes = [TorchServeProcess(config) for config in configs]
        self._supervisors: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every process, and begin to probe its workers.

        Raises:
            SetupError: a process cannot be started.
        """
        for address in [await process.start() for process in self.processes]:
            self.add(address)
        await super().start()
        for process, replica in zip(self.processes, self.replicas, strict=True):
            supervisor = Supervisor(process, replica, lost=self._lost, moved=self._moved)
            self._supervisors.append(asyncio.get_running_loop().create_task(supervisor.run()))

    async def close(self) -> None:
        """End every process and remove its folder."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)  # a start in progress is undone
        await super().close()
        await asyncio.gather(*(process.stop() for process in self.processes))

    def offers(self) -> tuple[Offer, ...]:
        """Return the offers of workers, of archives that are still to be loaded, and of refused archives."""
        offers = super().offers()
        known = {(offer.name, offer.version) for offer in offers}
        return (*offers, *(offer for offer in self._without_worker() if (offer.name, offer.version) not in known))

    def _without_worker(self) -> list[Offer]:
        """List models as archives name them; the file of an unusable archive is `<name>-<version>.mar`."""
        launches = [process.launch for process in self.processes if process.launch]
        offers = [
            Offer(name=archive.name, version=archive.version, reason="TorchServe is starting")
            for launch in launches
            for archive in launch.archives.values()
        ]
        offers += self._not_packed
        for path, reason in (pair for launch in launches for pair in launch.refused.items()):
            name, _, version = path.stem.rpartition("-")
            if name:
                offers.append(Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))
        return offers

    async def _lost(self) -> None:
        """Do nothing when a process has ended; its models load again with the next one."""

    async def _moved(self, address: Address) -> None:
        """Do nothing when a process has been restarted."""


class Supervisor:
    """Restarts one process that has been started, when it ends or stops answering; its replica gets the new address.

    Args:
        lost: awaited before it is restarted.
        moved: awaited with its new address.
    """

    def __init__(
        self,
        process: TorchServeProcess,
        replica: Replica,
        *,
        lost: Callable[[], Awaitable[None]],
        moved: Callable[[Address], Awaitable[None]],
    ) -> None:
        self._process = process
        self._replica = replica
        self._lost, self._moved = lost, moved
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
                await self._lost()
                await self._replica.retire(_REASON)
            except Exception:  # noqa: BLE001  # an error of the pool's watchers must not prevent the restart
                _log.exception("disconnecting from a TorchServe failed")
            address = await self._restart()
            self._replica.move(address)
            await self._moved(address)

    async def _wait_for_problem(self) -> str:
        while self._process.is_running:
            if self._replica.unresponsive_s > _UNRESPONSIVE_S:
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
