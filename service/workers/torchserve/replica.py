"""One TorchServe address: what it serves, whether its workers stay alive, and how loaded it is.

A replica is probed regularly, and more often while models load; the offers of its workers leave to the pool. Calls are
executed here, and their errors translated to the service's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace

import grpc
from google.protobuf.message import DecodeError

from fount.worker.v1 import worker_pb2
from service.domain import Call, Failure, ModelState, Reply, Target
from service.errors import WorkerBusy, WorkerFault, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer
from service.workers.torchserve.channel import (
    Address,
    TorchServeChannel,
    call_to_request,
    error_to_domain,
    is_unresponsive,
    reply_to_domain,
    says_no_worker,
)
from service.workers.torchserve.describe import Descriptions, ModelVersion

__all__ = ["Load", "Replica", "Stability"]

_log = logging.getLogger(__name__)

_FAST_PROBE_S, _SLOW_PROBE_S = 0.2, 2.0  # while a model loads, and otherwise
_LOADING_S = 120.0
_AVOIDED_S = 0.5  # after it lost a call, while another address can execute the next
_CHANGED = frozenset({"NUMERICS_MISMATCH", "DIGEST_MISMATCH", "MODEL_UNAVAILABLE"})

_UNKNOWN_COST_S = 1e-6  # of a call without an expected cost: enough for equal ones to alternate

_DEATH_WINDOW_S = 60.0
_MAX_DEATHS = 3  # of each worker, within the window: from then on it is a crash loop
_STABLE_S = 15.0


class Replica:
    """A TorchServe address, probed and called.

    Args:
        changed: called whenever its offers or its capacity may have changed.

    Attributes:
        offers: what it serves now.
        load: its calls in flight; the caller of `call` adds them.
        is_discovered: whether it has reported its models at least once.
        last_chosen: number of the pool's call for which it was last chosen; equal replicas alternate by it.
    """

    def __init__(self, address: Address, changed: Callable[[], None]) -> None:
        self.offers: dict[ModelVersion, Offer] = {}
        self.load = Load()
        self.is_discovered = False
        self.last_chosen = 0
        self._changed = changed
        self._probe_now = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None
        self._stability: dict[ModelVersion, Stability] = {}
        self._loading_since: dict[ModelVersion, float] = {}
        self._loading_reason = "workers are loading"
        self._avoided: dict[Target, asyncio.TimerHandle] = {}
        self._reported_away = False
        self._connect(address)

    def start(self) -> None:
        """Begin to probe it."""
        self._probing = asyncio.get_running_loop().create_task(self._probe_forever())

    async def close(self) -> None:
        """Stop probing, and close the connections; calls in flight end as lost."""
        await self._stop_probing()
        self.offers = {}
        await self._disconnect()

    async def retire(self, reason: str) -> None:
        """Disconnect from an address that is gone; its models are loading, with this reason, until `move`."""
        await self._stop_probing()
        for stability in self._stability.values():
            stability.forget()
        self._loading_since.clear()
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

    @property
    def unresponsive_s(self) -> float:
        """How long its management has not answered."""
        return 0.0 if self._unresponsive_since is None else time.monotonic() - self._unresponsive_since

    def workers(self, target: Target) -> int:
        """Return how many ready workers a target has here."""
        offer = self.offers.get((target.model.name, target.model.version))
        return offer.workers if offer and offer.target == target else 0

    def capacity(self, target: Target) -> int:
        """Return how many more calls they accept."""
        return max(0, CALLS_PER_WORKER * self.workers(target) - self.load.calls(target))

    def is_avoided(self, target: Target) -> bool:
        """Whether it lost a call of the target a moment ago."""
        return target in self._avoided

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Execute a call here; see `WorkerPool.call`."""
        key = call.target.model
        body = call_to_request(call).SerializeToString()
        try:
            answer = await self._channel.predict(key.name, key.version, body, timeout_s)
            reply = reply_to_domain(call, worker_pb2.WorkerReply.FromString(answer))
        except grpc.aio.AioRpcError as error:
            raise await self._translate(call, error) from error
        except DecodeError as error:
            raise WorkerFault("the worker's answer is not a worker.v1 reply") from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            task = asyncio.current_task()
            if self._closed and task and not task.cancelling():  # cancelled by the closed channel alone
                raise WorkerLost(f"the TorchServe of {key.name} {key.version} went away") from error
            raise
        self._check_identity(call, reply)
        return reply

    def _connect(self, address: Address) -> None:
        self._address = address
        self._channel = TorchServeChannel(address)
        self._descriptions = Descriptions(self._channel, self._probe_now.set)
        self._closed = False
        self._unresponsive_since: float | None = None  # time of the first probe without an answer

    async def _stop_probing(self) -> None:
        self._closed = True
        if self._probing:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        for timer in self._avoided.values():
            timer.cancel()
        self._avoided.clear()

    async def _disconnect(self) -> None:
        await self._descriptions.close()
        await self._channel.close()

    async def _translate(self, call: Call, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            self._channel.forget_tokens()
        if says_no_worker(error) and await self._has_ready_worker(call):
            return WorkerBusy(f"the queue of {call.target.model.name} {call.target.model.version} is full")
        self._probe_now.set()
        failure = error_to_domain(error, call)
        if isinstance(failure, WorkerLost):
            self._avoid(call.target)
        return failure

    async def _has_ready_worker(self, call: Call) -> bool:
        key = call.target.model
        try:
            return bool((await self._channel.ready_pids(key.name))[key.version])
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, ValueError, KeyError, TypeError):
            return False

    def _avoid(self, target: Target) -> None:
        """Avoid this replica for a moment."""

        def end() -> None:
            del self._avoided[target]
            self._changed()

        if timer := self._avoided.pop(target, None):
            timer.cancel()
        if not self._closed:
            self._avoided[target] = asyncio.get_running_loop().call_later(_AVOIDED_S, end)

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
            # Concurrently, so that a worker that is slow to describe itself does not hide the others.
            described = await asyncio.gather(*(self._offer(key, pids) for key, pids in ready.items()))
            offers = dict(zip(ready, described, strict=True))
            self.is_discovered = True  # not before: a model whose description is awaited is not an unknown one
        if offers != before:
            self.offers = offers
            self._changed()
        return bool(offers) and all(offer.state is not ModelState.LOADING for offer in offers.values())

    def _record_failed_probe(self, error: Exception) -> None:
        for key, stability in self._stability.items():
            self._descriptions.forget(key)
            stability.forget()
        self._channel.forget_tokens()
        if not is_unresponsive(error):
            self._unresponsive_since = None
        elif self._unresponsive_since is None:
            self._unresponsive_since = time.monotonic()
        if not self._reported_away:
            self._reported_away = True
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            _log.warning("TorchServe at %s does not answer correctly: %s", self._address.management, reason)

    async def _offer(self, key: ModelVersion, pids: frozenset[int]) -> Offer:
        now_s = time.monotonic()
        stability = self._stability.setdefault(key, Stability())
        stability.update(pids, now_s)
        if not pids:
            self._descriptions.forget(key)
            return self._not_loaded(key)
        self._loading_since.pop(key, None)
        offer = await self._descriptions.offer(key, pids)
        if offer is None:
            return replace(self._not_loaded(key), reason="its worker has not described itself yet")
        if offer.target is None:
            return offer
        if workers := stability.reliable_workers(now_s):
            return replace(offer, workers=workers)
        return replace(offer, state=ModelState.UNAVAILABLE, reason=stability.reason, workers=0)

    def _not_loaded(self, key: ModelVersion) -> Offer:
        since = self._loading_since.setdefault(key, time.monotonic())
        timed_out = time.monotonic() - since > _LOADING_S
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

    def reliable_workers(self, now_s: float) -> int:
        """Return how many workers to use: all, or in a crash loop those that have lived for a while."""
        if len(self._deaths_s) < _MAX_DEATHS * self._max_workers:
            return len(self._since_s)
        return sum(now_s - since_s >= _STABLE_S for since_s in self._since_s.values())

    @property
    def reason(self) -> str:
        """Why no worker is reliable, when none is."""
        return f"its workers keep dying ({len(self._deaths_s)} times in the last minute); see the worker's log"

    def forget(self) -> None:
        """Forget the workers, because they ended together with their TorchServe."""
        self._since_s = {}


class Load:
    """The calls in flight of a replica by target, and the time they are expected to take."""

    def __init__(self) -> None:
        self._calls: defaultdict[Target, list[Call]] = defaultdict(list)

    def add(self, call: Call) -> None:
        """Add a call."""
        self._calls[call.target].append(call)

    def remove(self, call: Call) -> None:
        """Remove a call."""
        self._calls[call.target].remove(call)

    def calls(self, target: Target) -> int:
        """Return how many calls are in flight."""
        return len(self._calls[target])

    def seconds(self, target: Target) -> float:
        """Return their total cost; summed anew each time, so that rounding errors do not accumulate."""
        return math.fsum(each.cost_s or _UNKNOWN_COST_S for each in self._calls[target])
