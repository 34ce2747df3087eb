"""The workers of one model version at one TorchServe: the routes to them, and whether they stay alive.

The processes that TorchServe reports as ready enter, with the addresses of those that can be called directly; routes
leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from service.workers.torchserve.routes import DirectRoute, QueueRoute, Route

__all__ = ["Stability", "WorkerGroup"]

_DEATH_WINDOW_S = 60.0
_MAX_DEATHS = 3  # of each worker, within the window: from then on it is a crash loop
_STABLE_S = 15.0


class WorkerGroup:
    """The workers of one model version: the routes to them, and whether they stay alive.

    Args:
        connect: makes the connection to a process at an address.
        queue: TorchServe's, for workers that cannot be called directly.

    Attributes:
        direct: connections by process id, made or to be made.
        stability: of the processes.
        loading_since_s: `time.monotonic()` when they began to load; None once they have loaded.
    """

    def __init__(self, connect: Callable[[int, str], DirectRoute], queue: QueueRoute) -> None:
        self.direct: dict[int, DirectRoute] = {}
        self.stability = Stability()
        self.loading_since_s: float | None = None
        self._connect = connect
        self._queue = queue
        self._reliable: frozenset[int] = frozenset()

    def routes(self) -> tuple[Route, ...]:
        """Return the routes that lead to a worker now."""
        direct = [route for pid, route in self.direct.items() if route.workers and pid in self._reliable]
        return (*direct, self._queue) if self._queue.workers else tuple(direct)

    @property
    def workers(self) -> int:
        """How many workers can be called."""
        return sum(route.workers for route in self.routes())

    async def lead_to(self, pids: frozenset[int], reliable: frozenset[int], addresses: Mapping[int, str]) -> None:
        """Connect to new workers, waiting a moment for each, and disconnect from those that are gone.

        Args:
            pids: the processes that are ready.
            reliable: those of them to be called.
            addresses: where processes can be called directly; the others are called through the queue.
        """
        gone = [self.direct.pop(pid) for pid in self.direct.keys() - pids]
        new = {pid: self._connect(pid, addresses[pid]) for pid in pids - self.direct.keys() if pid in addresses}
        self.direct |= new
        self._reliable = reliable
        await asyncio.gather(*(route.close() for route in gone), *(route.wait_connected() for route in new.values()))
        self._queue.workers = sum(pid not in self.direct or self.direct[pid].is_unreachable for pid in reliable)

    async def close(self) -> None:
        """Disconnect from all of them."""
        await asyncio.gather(self._queue.close(), *(route.close() for route in self.direct.values()))


class Stability:
    """Whether the workers of one model version stay alive.

    TorchServe reports a model as healthy while its workers die and are restarted, over and over.
    """

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}  # process id: when it was first seen
        self._deaths_s: deque[float] = deque()
        self._max_workers = 1

    def update(self, pids: frozenset[int], now_s: float) -> None:
        """Record the workers that are ready now; one that is missing has died."""
        if self._since_s.keys() - pids:
            self._deaths_s.append(now_s)
        self._since_s = {pid: self._since_s.get(pid, now_s) for pid in pids}
        self._max_workers = max(self._max_workers, len(pids))
        while self._deaths_s and now_s - self._deaths_s[0] > _DEATH_WINDOW_S:
            self._deaths_s.popleft()

    def reliable(self, now_s: float) -> frozenset[int]:
        """Return the workers to use: all, or in a crash loop those that have lived for a while."""
        if len(self._deaths_s) < _MAX_DEATHS * self._max_workers:
            return frozenset(self._since_s)
        return frozenset(pid for pid, since_s in self._since_s.items() if now_s - since_s >= _STABLE_S)

    @property
    def reason(self) -> str:
        """Why no worker is reliable, when none is."""
        return f"its workers keep dying ({len(self._deaths_s)} times in the last minute); see the worker's log"

    def forget(self) -> None:
        """Forget the workers, because they ended together with their TorchServe."""
        self._since_s = {}
