"""The worker pool over any number of TorchServe addresses: the choice of a replica, and second attempts.

A worker that is stopped, swapped out or stuck causes no error. Addresses give the same bytes on every worker, so a call
without a reply is repeated on another worker, and the first reply is used (hedging). The other call continues until it
ends by itself; meanwhile it counts as load of its worker, which receives no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from service.domain import Call, Reply, Target
from service.errors import NotReady
from service.workers import Offer
from service.workers.torchserve.channel import Address
from service.workers.torchserve.replica import Replica

__all__ = ["Hedge", "TorchServePool"]

_log = logging.getLogger(__name__)

_STALLED_S, _STALLED_COSTS = 2.0, 10  # a call without a reply for so long, or so many times its cost, is repeated

Answer = TypeVar("Answer")


class TorchServePool:
    """Workers behind TorchServe.

    Attributes:
        replicas: one for each address.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.replicas: list[Replica] = []
        self._watchers: list[Callable[[], None]] = []
        self._hedge = Hedge[Reply](self._replica_changed)
        self._hedged: Counter[Target] = Counter()
        self._calls = 0
        self._differing: set[Target] = set()
        for address in addresses:
            self.add(address)

    def add(self, address: Address) -> None:
        """Add an address, before the pool is started."""
        self.replicas.append(Replica(address, self._replica_changed))

    async def start(self) -> None:
        """Begin to probe every address."""
        for replica in self.replicas:
            replica.start()

    async def close(self) -> None:
        """Stop probing and close the connections; TorchServe keeps running."""
        await self._hedge.close()
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    def offers(self) -> tuple[Offer, ...]:
        """Return the offers of every address."""
        return tuple(offer for replica in self.replicas for offer in replica.offers.values())

    def is_discovered(self) -> bool:
        """Whether every address has reported its models at least once."""
        return bool(self.replicas) and all(replica.is_discovered for replica in self.replicas)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever offers or capacity may have changed."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """Return how many ready workers a target has now."""
        return sum(replica.workers(target) for replica in self.replicas)

    def capacity(self, target: Target) -> int:
        """Return how many more calls its workers accept now; see `WorkerPool.capacity`."""
        serving = self._serving(target)
        preferred = [replica for replica in serving if not replica.is_avoided(target)]
        return sum(replica.capacity(target) for replica in preferred or serving)

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Execute a call on the least loaded replica, and on another one when it stalls; see `WorkerPool.call`."""
        replica = _least_loaded(self._serving(call.target), call.target)
        if replica is None:
            raise NotReady(f"{call.target.model.name} {call.target.model.version} has no ready worker")
        ends_s = time.monotonic() + timeout_s
        return await self._hedge.answer(
            self._start(replica, call, timeout_s),
            lambda: self._repeat(replica, call, ends_s - time.monotonic()),
            max(_STALLED_S, _STALLED_COSTS * (call.cost_s or 0.0)),
        )

    def _serving(self, target: Target) -> list[Replica]:
        return [replica for replica in self.replicas if replica.workers(target)]

    def _start(self, replica: Replica, call: Call, timeout_s: float) -> asyncio.Task[Reply]:
        """Start a call; it counts as load from now on, before its task has run."""
        self._calls += 1
        replica.last_chosen = self._calls
        replica.load.add(call)
        task = asyncio.get_running_loop().create_task(replica.call(call, timeout_s))
        task.add_done_callback(lambda _: replica.load.remove(call))
        return task

    def _repeat(self, stalled: Replica, call: Call, timeout_s: float) -> asyncio.Task[Reply] | None:
        """Start a stalled call again on another replica, or on another worker of the same; None if there is none.

        Repeated calls of a target are limited to the number of its workers: when everything is slow, more of them would
        make it slower.
        """
        target, serving = call.target, self._serving(call.target)
        others = [replica for replica in serving if replica is not stalled]
        if not others and stalled.workers(target) > 1:
            others = [stalled]
        replica = _least_loaded(others, target)  # even without capacity: under load there is never any
        if replica is None or timeout_s <= 0 or self._hedged[target] >= self.workers(target):
            return None
        _log.warning("call %s is stalled and is repeated", call.request_id, extra={"action": "call_hedged"})
        self._hedged[target] += 1
        task = self._start(replica, call, timeout_s)
        task.add_done_callback(lambda _: self._hedged.subtract([target]))
        return task

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


def _least_loaded(replicas: Sequence[Replica], target: Target) -> Replica | None:
    """Choose a replica that lost no call recently, has capacity, and has the least load a worker; equals alternate."""

    def rank(replica: Replica) -> tuple[bool, bool, float, int]:
        load_s = replica.load.seconds(target) / replica.workers(target)
        return replica.is_avoided(target), not replica.capacity(target), load_s, replica.last_chosen

    return min(replicas, key=rank, default=None)


class Hedge(Generic[Answer]):
    """Calls that may be repeated while they are in flight.

    Args:
        ended: called when a call whose answer was not used has ended.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._unused: set[asyncio.Task[Answer]] = set()

    async def answer(
        self, first: asyncio.Task[Answer], repeat: Callable[[], asyncio.Task[Answer] | None], stalled_s: float
    ) -> Answer:
        """Return the first answer.

        Args:
            first: the call in flight.
            repeat: starts it again elsewhere; None when that is not possible now.
            stalled_s: after how long a single call without an answer is repeated; tried again at this interval.

        Raises:
            FountServiceError: a worker's answer; or that of the first call, when no call reached a worker.
        """
        calls = [first]
        try:
            answered = await _first_answered(calls, repeat, stalled_s)
        except asyncio.CancelledError:
            for each in calls:
                each.cancel()
            raise
        for each in calls:
            if each is not answered:
                self._unused.add(each)
                each.add_done_callback(self._forget)
        return answered.result()

    async def close(self) -> None:
        """Cancel the calls whose answers were not used."""
        unused = list(self._unused)
        for each in unused:
            each.cancel()
        await asyncio.gather(*unused, return_exceptions=True)

    def _forget(self, call: asyncio.Task[Answer]) -> None:
        self._unused.discard(call)
        if not call.cancelled():
            call.exception()  # marks an error as retrieved, so that asyncio does not log it
            self._ended()


async def _first_answered(
    calls: list[asyncio.Task[Answer]], repeat: Callable[[], asyncio.Task[Answer] | None], stalled_s: float
) -> asyncio.Task[Answer]:
    """Wait for a result or a worker's error; a call that met no worker waits for the repeated one."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=stalled_s, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and (call.cancelled() or not isinstance(call.exception(), NotReady)):
                return call
        if not done and len(waiting) == 1 and (repeated := repeat()):
            calls.append(repeated)
            waiting.add(repeated)
    return calls[0]
