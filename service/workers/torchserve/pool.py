"""The real worker pool: any number of TorchServe addresses, watched and called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from service.domain import Call, Reply, Target
from service.errors import NotReady
from service.workers import Offer
from service.workers.torchserve.channel import Address
from service.workers.torchserve.hedging import Hedge
from service.workers.torchserve.replica import Replica

__all__ = ["TorchServePool"]

_log = logging.getLogger(__name__)

_PATIENCE_S, _PATIENCE_COSTS = 2.0, 10  # a call without an answer for so long, or so many times its cost, is stalled


class TorchServePool:
    """Workers behind TorchServe.

    Args:
        addresses: where they are.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._replicas = [Replica(address, self._tell) for address in addresses]
        self._watchers: list[Callable[[], None]] = []
        self._hedge = Hedge[Reply](self._tell)
        self._hedged: Counter[Target] = Counter()
        self._calls = 0
        self._differing: set[Target] = set()

    async def start(self) -> None:
        """Begin to watch every address."""
        for replica in self._replicas:
            replica.start()

    async def close(self) -> None:
        """Stop watching and let go of the connections; TorchServe goes on."""
        await self._hedge.close()
        await asyncio.gather(*(replica.close() for replica in self._replicas))

    async def retire(self, index: int, reason: str) -> None:
        """Let go of the address at a place among the addresses; its models count as loading until it is replaced."""
        await self._replicas[index].retire(reason)

    def replace(self, index: int, address: Address) -> None:
        """Watch and call a new address in the place of a retired one."""
        self._replicas[index].move(address)

    def silent_s(self, index: int) -> float:
        """How long the management of the address at a place has not answered."""
        return self._replicas[index].silent_s

    def offers(self) -> tuple[Offer, ...]:
        """What every address offers."""
        return tuple(offer for replica in self._replicas for offer in replica.offers.values())

    def is_discovered(self) -> bool:
        """Whether every address has told what it serves, at least once."""
        return all(replica.is_discovered for replica in self._replicas)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever offers may have changed."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """How many ready workers a target has now."""
        return sum(replica.workers(target) for replica in self._replicas)

    def capacity(self, target: Target) -> int:
        """How many more calls its workers take now; see `WorkerPool.room`."""
        able = self._able(target)
        trusted = [replica for replica in able if not replica.is_avoided(target)]
        return sum(replica.capacity(target) for replica in trusted or able)

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Have the least laden replica do a call, and another when it stalls; see `WorkerPool.call`."""
        replica = self._least_laden(self._able(call.target), call.target)
        if replica is None:
            raise NotReady(f"{call.target.model.name} {call.target.model.version} has no ready worker")
        ends_s = time.monotonic() + timeout_s
        return await self._hedge.answer(
            self._start(replica, call, timeout_s),
            lambda: self._start_again(replica, call, ends_s - time.monotonic()),
            max(_PATIENCE_S, _PATIENCE_COSTS * (call.cost_s or 0)),
        )

    def _able(self, target: Target) -> list[Replica]:
        return [replica for replica in self._replicas if replica.workers(target)]

    @staticmethod
    def _least_laden(able: Sequence[Replica], target: Target) -> Replica | None:
        """One that did not lose a call just now, with room, with the least to do a worker; equals take turns."""

        def burden(replica: Replica) -> tuple[bool, bool, float, int]:
            laden_s = replica.load.seconds(target) / replica.workers(target)
            return replica.is_avoided(target), not replica.capacity(target), laden_s, replica.chosen

        return min(able, key=burden, default=None)

    def _start(self, replica: Replica, call: Call, timeout_s: float) -> asyncio.Task[Reply]:
        """Begin a call; it counts from now on, before its task has even run."""
        self._calls += 1
        replica.chosen = self._calls
        replica.load.add(call)
        task = asyncio.get_running_loop().create_task(replica.call(call, timeout_s))
        task.add_done_callback(lambda _: replica.load.remove(call))
        return task

    def _start_again(self, stalled: Replica, call: Call, timeout_s: float) -> asyncio.Task[Reply] | None:
        """Make a stalled call once more, by another replica, or by another worker of the same; None if there is none.

        Second calls of a target are bounded by its workers: when everything is slow they would make it slower.
        """
        target, able = call.target, self._able(call.target)
        others = [replica for replica in able if replica is not stalled]
        if not others and stalled.workers(target) > 1:
            others = [stalled]
        replica = self._least_laden(others, target)  # room or not: under load there never is any
        if replica is None or timeout_s <= 0 or self._hedged[target] >= self.workers(target):
            return None
        _log.warning("call %s is stalled and made once more", call.request_id, extra={"action": "call_hedged"})
        self._hedged[target] += 1
        task = self._start(replica, call, timeout_s)
        task.add_done_callback(lambda _: self._hedged.subtract([target]))
        return task

    def _tell(self) -> None:
        self._warn_of_differences()
        for changed in self._watchers:
            changed()

    def _warn_of_differences(self) -> None:
        """Say once of a target that its replicas execute different batch sizes: equal bytes, but unequal speed."""
        sizes: dict[Target, set[frozenset[int]]] = {}
        for offer in self.offers():
            if offer.target and offer.batch_seconds:
                sizes.setdefault(offer.target, set()).add(frozenset(offer.batch_seconds))
        for target in {target for target, seen in sizes.items() if len(seen) > 1} - self._differing:
            self._differing.add(target)
            _log.warning("the replicas of %s %s execute different batch sizes", target.model.name, target.model.version)
