"""The worker pool over any number of TorchServe addresses: the choice of a route to a worker.

Addresses give the same bytes on every worker, so a call whose worker is lost is repeated on another one, by the
scheduler. A worker that is called directly and stops is lost once its connection answers no ping. Of those behind
TorchServe's queue nothing is known, so a call that gets no answer for long is given up when there are other workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from service.calls import Call, Reply
from service.domain import Target
from service.errors import NotReady, WorkerLost
from service.workers import Offer
from service.workers.torchserve.channel import Address
from service.workers.torchserve.replica import Replica
from service.workers.torchserve.routes import Route

__all__ = ["TorchServePool"]

_log = logging.getLogger(__name__)

_STALLED_S, _STALLED_COSTS = 2.0, 10  # a call without a reply for so long, or so many times its cost, is given up


class TorchServePool:
    """Workers behind TorchServe.

    Args:
        addresses: of TorchServes.
        direct: whether workers are called directly where that is possible.

    Attributes:
        replicas: one for each address.
    """

    def __init__(self, addresses: Sequence[Address], *, direct: bool = True) -> None:
        self.replicas: list[Replica] = []
        self._direct = direct
        self._watchers: list[Callable[[], None]] = []
        self._calls = 0
        self._differing: set[Target] = set()
        for address in addresses:
            self.add(address)

    def add(self, address: Address) -> None:
        """Add an address, before the pool is started."""
        self.replicas.append(Replica(address, self._replica_changed, direct=self._direct))

    async def start(self) -> None:
        """Begin to probe every address."""
        for replica in self.replicas:
            replica.start()

    async def close(self) -> None:
        """Stop probing and close the connections; TorchServe keeps running."""
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    def offers(self) -> tuple[Offer, ...]:
        """Return the offers of every address."""
        return tuple(offer for replica in self.replicas for offer in replica.offers.values())

    def is_discovered(self) -> bool:
        """Whether every address has reported its models at least once."""
        return bool(self.replicas) and all(replica.is_discovered for replica in self.replicas)

    def hold(self, name: str, version: str) -> None:
        """Do nothing: workers are not started on demand."""

    async def load(self, name: str, version: str) -> bool:
        """Return False: workers are not started on demand."""
        return False

    def report_loads(self, loaded: Callable[[str, str, float], None], evicted: Callable[[str, str], None]) -> None:
        """Do nothing: workers are not started on demand."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever offers or capacity may have changed."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """Return how many ready workers a target has now."""
        return sum(route.workers for replica in self.replicas for route in replica.routes(target))

    def capacity(self, target: Target) -> int:
        """Return how many more calls its workers accept now; see `WorkerPool.capacity`."""
        routes = [(replica, route) for replica in self.replicas for route in replica.routes(target)]
        preferred = [route for replica, route in routes if not replica.is_avoided(route)]
        return sum(route.capacity for route in preferred or [route for _, route in routes])

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Execute a call by the least loaded route; see `WorkerPool.call`."""
        chosen = self._least_loaded(call.target)
        if chosen is None:
            raise NotReady(f"{call.target.model.name} {call.target.model.version} has no ready worker")
        replica, route = chosen
        self._calls += 1
        route.last_chosen = self._calls
        if route.is_direct or self.workers(call.target) == 1:
            return await replica.call(route, call, timeout_s)
        stalled_s = max(_STALLED_S, _STALLED_COSTS * (call.cost_s or 0.0))
        try:
            async with asyncio.timeout(stalled_s):
                return await replica.call(route, call, timeout_s)
        except TimeoutError as error:
            replica.avoid(route)
            raise WorkerLost(f"a call of {call.target.model.name} got no answer for {stalled_s:.3g} s") from error

    def _least_loaded(self, target: Target) -> tuple[Replica, Route] | None:
        """Choose a route that lost no call recently, has capacity, and the least load a worker; equals alternate."""

        def rank(chosen: tuple[Replica, Route]) -> tuple[bool, bool, float, int]:
            replica, route = chosen
            return replica.is_avoided(route), not route.capacity, route.load_s, route.last_chosen

        routes = [(replica, route) for replica in self.replicas for route in replica.routes(target)]
        return min(routes, key=rank, default=None)

    def _replica_changed(self) -> None:
        self._warn_of_differences()
        for changed in self._watchers:
            changed()

    def _warn_of_differences(self) -> None:
        """Warn once of a target whose replicas execute different batch sizes: equal bytes, but unequal speed."""
        sizes: dict[Target, set[frozenset[int]]] = {}
        for offer in self.offers():
            if offer.target and offer.batch_seconds:
                sizes.setdefault(offer.target, set()).add(frozenset(offer.batch_seconds))
        for target in {target for target, seen in sizes.items() if len(seen) > 1} - self._differing:
            self._differing.add(target)
            _log.warning("the replicas of %s %s execute different batch sizes", target.model.name, target.model.version)
