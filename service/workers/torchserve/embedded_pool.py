"""The pool of `fount serve`: a TorchServe of the gateway's own, started, kept running and stopped with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.domain import Call, ModelState, Reply, Target
from service.errors import NotReady
from service.workers import Offer
from service.workers.torchserve.embedded import EmbeddedTorchServe
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.supervisor import Supervisor

__all__ = ["EmbeddedPool"]


class EmbeddedPool:
    """One or more TorchServe processes, and the pool over them.

    Args:
        configs: one a process.
        refused: what was left out before there was an archive; listed unless a process serves it.
    """

    def __init__(self, *configs: TorchServeConfig, refused: Sequence[Offer] = ()) -> None:
        self._never_packed = tuple(refused)
        self.processes = [EmbeddedTorchServe(config) for config in configs]
        self._pool: TorchServePool | None = None
        self._watchers: list[Callable[[], None]] = []
        self._guards: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every process, and begin to watch its workers.

        Raises:
            SetupError: one cannot be started.
        """
        self._pool = TorchServePool([await process.start() for process in self.processes])
        for changed in self._watchers:
            self._pool.watch(changed)
        await self._pool.start()
        for index, process in enumerate(self.processes):
            supervisor = Supervisor(process, self._pool, index)
            self._guards.append(asyncio.get_running_loop().create_task(supervisor.run()))

    async def close(self) -> None:
        """End every process and remove its folder."""
        for guard in self._guards:
            guard.cancel()
        await asyncio.gather(*self._guards, return_exceptions=True)  # a start under way is undone
        if self._pool:
            await self._pool.close()
        await asyncio.gather(*(process.stop() for process in self.processes))

    def offers(self) -> tuple[Offer, ...]:
        """What the workers offer, what is still to come, and why refused archives are not among it."""
        offers = self._pool.offers() if self._pool else ()
        known = {(offer.name, offer.version) for offer in offers}
        return (*offers, *self._awaited(known), *self._refused(known))

    def has_looked(self) -> bool:
        """Whether every process has told what it serves, at least once."""
        return self._pool is not None and self._pool.has_looked()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever offers may have changed."""
        self._watchers.append(changed)
        if self._pool:
            self._pool.watch(changed)

    def workers(self, target: Target) -> int:
        """How many ready workers a target has now."""
        return self._pool.workers(target) if self._pool else 0

    def room(self, target: Target) -> int:
        """How many more calls its workers take now; see `WorkerPool.room`."""
        return self._pool.room(target) if self._pool else 0

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Have one worker do a call; see `WorkerPool.call`."""
        if self._pool is None:
            raise NotReady("TorchServe is starting")
        return await self._pool.call(call, timeout_s=timeout_s)

    def _awaited(self, known: set[tuple[str, str]]) -> list[Offer]:
        return [
            Offer(name=archive.name, version=archive.version, reason="TorchServe is starting")
            for process in self.processes
            for archive in (process.launch.archives if process.launch else ())
            if (archive.name, archive.version) not in known
        ]

    def _refused(self, known: set[tuple[str, str]]) -> list[Offer]:
        """An unusable archive is named after its file: `<name>-<version>.mar`."""
        offers = [offer for offer in self._never_packed if (offer.name, offer.version) not in known]
        for process in self.processes:
            for path, reason in (process.launch.refused if process.launch else {}).items():
                name, _, version = path.stem.rpartition("-")
                if name and (name, version) not in known:
                    offers.append(Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))
        return offers
