"""One TorchServe address: what it serves, and the routes to its workers.

A replica is probed regularly, and more often while models load; the offers of its workers leave to the pool, and the
routes that calls take. Workers that can be called directly are, so their end is known at once; TorchServe itself is
asked which processes there are, and is the way to the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import grpc

from fount.client.channel import proxy_note
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.calls import Call, Failure, Reply
from service.domain import ModelState, Target
from service.errors import WorkerLost
from service.workers import Offer
from service.workers.torchserve.channel import Address, TorchServeChannel, is_unresponsive
from service.workers.torchserve.describe import Descriptions, ModelVersion
from service.workers.torchserve.group import WorkerGroup
from service.workers.torchserve.routes import DirectRoute, QueueRoute, Route

__all__ = ["Replica"]

_log = logging.getLogger(__name__)

_FAST_PROBE_S, _SLOW_PROBE_S = 0.2, 2.0  # while a model loads, and otherwise
_LOADING_S = 120.0
_AVOIDED_S = 0.5  # after it lost a call, while another route can execute the next
_LIVENESS_S = 15.0  # between calls through TorchServe, by which it notices workers that are stuck
_RESPONSE_S = 150.0  # longer than TorchServe waits before it replaces a worker
_DEATH_POLLS, _DEATH_POLL_S = 4, 0.05  # TorchServe may notice the end of a process a little later
_CHANGED = frozenset({"NUMERICS_MISMATCH", "DIGEST_MISMATCH", "MODEL_UNAVAILABLE"})


class Replica:
    """A TorchServe address, probed and called.

    Args:
        changed: called whenever its offers or its capacity may have changed.
        direct: whether workers are called directly where that is possible.

    Attributes:
        offers: what it serves now.
        is_discovered: whether it has reported its models at least once.
    """

    def __init__(self, address: Address, changed: Callable[[], None], *, direct: bool = True) -> None:
        self.offers: dict[ModelVersion, Offer] = {}
        self.is_discovered = False
        self._changed = changed
        self._direct = direct
        self._probe_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._groups: dict[ModelVersion, WorkerGroup] = {}
        self._loading_reason = "workers are loading"
        self._avoided: dict[Route, asyncio.TimerHandle] = {}
        self._reported_away = False
        self._connect(address)

    def start(self) -> None:
        """Begin to probe it."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._probe_forever()), loop.create_task(self._check_liveness_forever())]

    async def close(self) -> None:
        """Stop probing, and close the connections; calls in flight end as lost."""
        await self._stop_probing()
        self.offers = {}
        await self._disconnect()

    async def retire(self, reason: str) -> None:
        """Disconnect from an address that is gone; its models are loading, with this reason, until `move`."""
        await self._stop_probing()
        self._loading_reason = reason
        self.offers = {
            key: replace(offer, state=ModelState.LOADING, reason=reason, workers=0)
            for key, offer in self.offers.items()
        }
        self._changed()
        await self._disconnect()

    def move(self, address: Address) -> None:
        """Probe and call another address from now on."""
        self._connect(address)
        self.start()

    def probe_soon(self) -> None:
        """Probe it in a moment, because its models have changed."""
        self._probe_now.set()

    @property
    def unresponsive_s(self) -> float:
        """How long its management has not answered."""
        return 0.0 if self._unresponsive_since is None else time.monotonic() - self._unresponsive_since

    def routes(self, target: Target) -> tuple[Route, ...]:
        """Return the routes to ready workers of a target."""
        key = (target.model.name, target.model.version)
        offer, group = self.offers.get(key), self._groups.get(key)
        return group.routes() if offer and group and offer.target == target else ()

    def is_avoided(self, route: Route) -> bool:
        """Whether a route lost a call a moment ago."""
        return route in self._avoided

    async def call(self, route: Route, call: Call, timeout_s: float) -> Reply:
        """Execute a call by one of its routes; see `WorkerPool.call`."""
        try:
            reply = await route.call(call, timeout_s)
        except WorkerLost:
            self._channel.forget_tokens()  # they may be of an earlier TorchServe
            self._probe_now.set()
            self.avoid(route)
            raise
        self._check_identity(call, reply)
        return reply

    def avoid(self, route: Route) -> None:
        """Avoid a route for a moment."""

        def end() -> None:
            del self._avoided[route]
            self._changed()

        if timer := self._avoided.pop(route, None):
            timer.cancel()
        if not self._closed:
            self._avoided[route] = asyncio.get_running_loop().call_later(_AVOIDED_S, end)

    def _connect(self, address: Address) -> None:
        self._address = address
        self._channel = TorchServeChannel(address)
        self._descriptions = Descriptions(self._channel, self._probe_now.set)
        self._closed = False
        self._unresponsive_since: float | None = None  # time of the first probe without an answer

    async def _stop_probing(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._avoided.values():
            timer.cancel()
        self._avoided.clear()

    async def _disconnect(self) -> None:
        await self._descriptions.close()
        groups, self._groups = self._groups, {}
        await asyncio.gather(*(group.close() for group in groups.values()))
        await self._channel.close()

    def _check_identity(self, call: Call, reply: Reply) -> None:
        """Detect a worker that differs from its description: another digest, other numerics, or failed checks."""
        for outcome in reply.outcomes:
            if isinstance(outcome, Failure) and outcome.reason in _CHANGED:
                key = (call.target.model.name, call.target.model.version)
                self._descriptions.forget(key)
                self.offers[key] = Offer(name=key[0], version=key[1], reason="its worker changed")
                self._probe_now.set()
                self._changed()
                raise WorkerLost(f"the worker at {self._address.inference} changed: {outcome.message}")

    async def _probe_forever(self) -> None:
        while True:
            self._probe_now.clear()
            try:
                all_loaded = await self._probe()
            except Exception:  # noqa: BLE001  # probing must survive any answer of TorchServe or of a worker
                _log.exception("probing %s failed", self._address.inference)
                all_loaded = True
            try:
                async with asyncio.timeout(_SLOW_PROBE_S if all_loaded else _FAST_PROBE_S):
                    await self._probe_now.wait()
                await asyncio.sleep(_FAST_PROBE_S)  # many failing calls do not cause as many probes
            except TimeoutError:
                pass

    async def _probe(self) -> bool:
        """Update the offers; return whether nothing is loading."""
        before = dict(self.offers)
        try:
            ready = {
                (name, version): pids
                for name in await self._channel.list_models()
                for version, pids in (await self._channel.ready_pids(name)).items()
            }
        except (grpc.aio.AioRpcError, ValueError, KeyError, TypeError) as error:
            self._record_failed_probe(error)
            offers = {key: _away(offer) for key, offer in before.items()}
        else:
            self._reported_away, self._unresponsive_since = False, None
            for key in self._groups.keys() - ready.keys():
                await self._forget(key)
            # Concurrently, so that a worker that is slow to describe itself does not hide the others.
            described = await asyncio.gather(*(self._offer(key, pids) for key, pids in ready.items()))
            offers = dict(zip(ready, described, strict=True))
            self.is_discovered = True  # not before: a model whose description is awaited is not an unknown one
        if offers != before:
            self.offers = offers
            self._changed()
        return bool(offers) and all(offer.state is not ModelState.LOADING for offer in offers.values())

    async def _forget(self, key: ModelVersion) -> None:
        """Forget the workers of a model that is not registered any more; their end is no crash."""
        self._descriptions.forget(key)
        await self._groups.pop(key).close()

    def _record_failed_probe(self, error: Exception) -> None:
        for key, group in self._groups.items():
            self._descriptions.forget(key)
            group.stability.forget()
        self._channel.forget_tokens()
        if not is_unresponsive(error):
            self._unresponsive_since = None
        elif self._unresponsive_since is None:
            self._unresponsive_since = time.monotonic()
        if not self._reported_away:
            self._reported_away = True
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            where = self._address.management
            _log.warning("TorchServe at %s does not answer correctly%s: %s", where, proxy_note(where), reason)

    async def _offer(self, key: ModelVersion, pids: frozenset[int]) -> Offer:
        group, now_s = self._group(key), time.monotonic()
        group.stability.update(pids, now_s)
        if not pids:
            self._descriptions.forget(key)
            await group.lead_to(frozenset(), frozenset(), {})
            return self._not_loaded(key, group)
        offer = await self._descriptions.offer(key, pids)
        if offer is None:
            return replace(self._not_loaded(key, group), reason="its worker has not described itself yet")
        if offer.target is None:
            group.loading_since_s = None
            return offer
        reliable = group.stability.reliable(now_s)
        await group.lead_to(pids, reliable, self._descriptions.addresses if self._direct else {})
        if not reliable:
            return replace(offer, state=ModelState.UNAVAILABLE, reason=group.stability.reason, workers=0)
        if not group.workers:
            return replace(self._not_loaded(key, group), reason="its workers do not answer")
        group.loading_since_s = None
        return replace(offer, workers=group.workers)

    def _group(self, key: ModelVersion) -> WorkerGroup:
        group = self._groups.get(key)
        if group is None:

            def connect(pid: int, address: str) -> DirectRoute:
                host = self._address.inference.rpartition(":")[0]
                return DirectRoute(
                    address if address.startswith("unix:") else host + address,
                    lambda: self._channel.authorization("inference"),
                    lambda: self._has_died(key, pid),
                    lambda: self._route_changed(key),
                )

            group = self._groups[key] = WorkerGroup(
                connect, QueueRoute(self._channel, lambda: self._has_ready_worker(key), self._changed)
            )
        return group

    async def _has_ready_worker(self, key: ModelVersion) -> bool:
        return bool(await self._ready_pids(key))

    async def _has_died(self, key: ModelVersion, pid: int) -> bool:
        """Whether TorchServe has noticed that a worker's process ended; not when TorchServe itself has."""
        for _ in range(_DEATH_POLLS):
            ready = await self._ready_pids(key)
            if ready is None or pid not in ready:
                return ready is not None
            await asyncio.sleep(_DEATH_POLL_S)
        return False

    async def _ready_pids(self, key: ModelVersion) -> frozenset[int] | None:
        """Ask TorchServe for the workers that are ready; None when there is no answer."""
        name, version = key
        try:
            return (await self._channel.ready_pids(name))[version]
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, ValueError, KeyError, TypeError):
            return None

    def _route_changed(self, key: ModelVersion) -> None:
        """Update the offer of workers at once when one is connected or lost."""
        offer, group = self.offers.get(key), self._groups.get(key)
        if offer and group and offer.target and offer.workers != group.workers:
            offer = replace(offer, workers=group.workers)
            if not group.workers:
                offer = replace(offer, state=ModelState.LOADING, reason="its workers do not answer")
            self.offers[key] = offer
        self._probe_now.set()
        self._changed()

    async def _check_liveness_forever(self) -> None:
        """Call every model that is called directly through TorchServe too, which replaces a worker that is stuck.

        TorchServe gives each call to another idle worker of its own view, so that all of them are met.
        """
        body = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE).SerializeToString()

        async def check(key: ModelVersion) -> None:
            try:
                await self._channel.predict(*key, body, _RESPONSE_S)
            except (grpc.aio.AioRpcError, grpc.aio.UsageError):
                self._probe_now.set()

        checks: dict[ModelVersion, set[asyncio.Task[None]]] = {}
        try:
            while True:
                await asyncio.sleep(_LIVENESS_S)
                for key, group in self._groups.items():
                    running = checks.setdefault(key, set())
                    if len(running) < len(group.direct):
                        task = asyncio.get_running_loop().create_task(check(key))
                        running.add(task)
                        task.add_done_callback(running.discard)
        finally:
            for task in [task for running in checks.values() for task in running]:
                task.cancel()

    def _not_loaded(self, key: ModelVersion, group: WorkerGroup) -> Offer:
        if group.loading_since_s is None:
            group.loading_since_s = time.monotonic()
        timed_out = time.monotonic() - group.loading_since_s > _LOADING_S
        known = self.offers.get(key)
        name, version = key
        timeout_reason = f"no worker has loaded for {_LOADING_S:g} s; see TorchServe's log for the reason"
        return Offer(
            name=name,
            version=version,
            model=known.model if known else None,
            state=ModelState.UNAVAILABLE if timed_out else ModelState.LOADING,
            reason=timeout_reason if timed_out else self._loading_reason,
        )


def _away(offer: Offer) -> Offer:
    return Offer(name=offer.name, version=offer.version, model=offer.model, numerics=offer.numerics,
                 state=ModelState.UNAVAILABLE, reason="TorchServe does not answer")  # fmt: skip
