"""One TorchServe address: what it offers, and how laden it is."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import grpc
from google.protobuf.message import DecodeError

from fount.worker.v1 import worker_pb2
from service.domain import Call, Failure, ModelState, Reply, Target
from service.errors import WorkerBusy, WorkerFault, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer
from service.workers.torchserve.channel import Address, TorchServeChannel, WorkerState
from service.workers.torchserve.describe import Descriptions, ModelVersion
from service.workers.torchserve.messages import call_to_request, reply_to_domain
from service.workers.torchserve.status import error_to_domain, is_no_room, is_silence

__all__ = ["Load", "Replica", "Stability"]


_log = logging.getLogger(__name__)

_PROBE_FAST_S, _PROBE_SLOW_S = 0.2, 2.0  # while something loads, and when all is settled
_LOADING_S = 120.0
_AVOIDED_S = 0.5  # after it lost a call, while another address can do the next
_CHANGED = frozenset({"NUMERICS_MISMATCH", "DIGEST_MISMATCH", "MODEL_UNAVAILABLE"})


class Replica:
    """A TorchServe address, watched and called.

    Args:
        address: where it is.
        changed: called whenever its offers or its room may have changed.

    Attributes:
        offers: what it offers now.
        load: its calls in flight; whoever starts a call counts it here.
        has_looked: whether it has told what it serves, at least once.
        chosen: when it was last chosen, in calls of its pool; equals take turns by it.
    """

    def __init__(self, address: Address, changed: Callable[[], None]) -> None:
        self.offers: dict[ModelVersion, Offer] = {}
        self.load = Load()
        self.is_discovered = False
        self.chosen = 0
        self._changed = changed
        self._look_now = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._lives: dict[ModelVersion, Stability] = {}
        self._loading_since: dict[ModelVersion, float] = {}
        self._loading = "workers are loading"
        self._avoided: dict[Target, asyncio.TimerHandle] = {}
        self._away = False
        self._connect(address)

    def start(self) -> None:
        """Begin to watch it."""
        self._watch = asyncio.get_running_loop().create_task(self._watch_forever())

    async def close(self) -> None:
        """Stop watching, and let go of the connections; calls in flight end as lost."""
        await self._watch_no_more()
        self.offers = {}
        await self._disconnect()

    async def retire(self, reason: str) -> None:
        """Let go of an address that is gone; its models are loading, for that reason, until it moves to another."""
        await self._watch_no_more()
        for lives in self._lives.values():
            lives.forget()
        self._loading_since.clear()
        self._loading = reason
        self.offers = {
            key: replace(offer, state=ModelState.LOADING, reason=reason, workers=0)
            for key, offer in self.offers.items()
        }
        self._changed()
        await self._disconnect()

    def move(self, address: Address) -> None:
        """Watch and call another address in its place."""
        self._connect(address)
        self.start()

    @property
    def silent_s(self) -> float:
        """How long its management has not answered."""
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    def workers(self, target: Target) -> int:
        """How many ready workers a target has here."""
        offer = self.offers.get((target.model.name, target.model.version))
        return offer.workers if offer and offer.target == target else 0

    def capacity(self, target: Target) -> int:
        """How many more calls they take."""
        return max(0, CALLS_PER_WORKER * self.workers(target) - self.load.calls(target))

    def is_avoided(self, target: Target) -> bool:
        """Whether it lost a call of the target a moment ago."""
        return target in self._avoided

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Do a call here; see `WorkerPool.call`."""
        key = call.target.model
        body = call_to_request(call).SerializeToString()
        try:
            answer = await self._channel.predict(key.name, key.version, body, timeout_s)
            reply = reply_to_domain(call, worker_pb2.WorkerReply.FromString(answer))
        except grpc.aio.AioRpcError as error:
            raise await self._failed(call, error) from error
        except DecodeError as error:
            raise WorkerFault("the worker's answer is not a worker.v1 reply") from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            asked = asyncio.current_task()
            if self._closed and asked and not asked.cancelling():  # by the closed channel, by nobody else
                raise WorkerLost(f"the TorchServe of {key.name} {key.version} went away") from error
            raise
        self._refuse_strangers(call, reply)
        return reply

    def _connect(self, address: Address) -> None:
        self._address = address
        self._channel = TorchServeChannel(address)
        self._descriptions = Descriptions(self._channel, self._look_now.set)
        self._closed = False
        self._silent_since: float | None = None  # the first look that heard nothing

    async def _watch_no_more(self) -> None:
        self._closed = True
        if self._watch:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        for timer in self._avoided.values():
            timer.cancel()
        self._avoided.clear()

    async def _disconnect(self) -> None:
        await self._descriptions.close()
        await self._channel.close()

    async def _failed(self, call: Call, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            self._channel.forget_tokens()
        if is_no_room(error) and await self._has_ready_worker(call):
            return WorkerBusy(f"the queue of {call.target.model.name} {call.target.model.version} is full")
        self._look_now.set()
        failure = error_to_domain(error, call)
        if isinstance(failure, WorkerLost):
            self._avoid(call.target)
        return failure

    async def _has_ready_worker(self, call: Call) -> bool:
        key = call.target.model
        try:
            return bool((await self._channel.describe(key.name))[key.version].ready_pids)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, ValueError, KeyError, TypeError):
            return False

    def _avoid(self, target: Target) -> None:
        if timer := self._avoided.pop(target, None):
            timer.cancel()
        if not self._closed:
            self._avoided[target] = asyncio.get_running_loop().call_later(_AVOIDED_S, self._avoid_no_more, target)

    def _avoid_no_more(self, target: Target) -> None:
        del self._avoided[target]
        self._changed()

    def _refuse_strangers(self, call: Call, reply: Reply) -> None:
        """A worker that is not what its group said: another digest, other numerics, or one that failed its checks."""
        for outcome in reply.outcomes:
            if isinstance(outcome, Failure) and outcome.reason in _CHANGED:
                key = (call.target.model.name, call.target.model.version)
                self._descriptions.forget(key)
                self.offers[key] = Offer(name=key[0], version=key[1], reason="its worker changed")
                self._look_now.set()
                self._changed()
                raise WorkerLost(f"the worker at {self._address.inference} changed: {outcome.message}")

    async def _watch_forever(self) -> None:
        while True:
            self._look_now.clear()
            try:
                settled = await self._look()
            except Exception:  # noqa: BLE001  # the watch must outlive whatever TorchServe or a worker says
                _log.exception("looking at %s failed", self._address.inference)
                settled = True
            try:
                async with asyncio.timeout(_PROBE_SLOW_S if settled else _PROBE_FAST_S):
                    await self._look_now.wait()
                await asyncio.sleep(_PROBE_FAST_S)  # a storm of failing calls is not a storm of probes
            except TimeoutError:
                pass

    async def _look(self) -> bool:
        """Bring the offers up to date; True when nothing is loading."""
        before = dict(self.offers)
        try:
            states = {
                (name, version): state
                for name in await self._channel.list_models()
                for version, state in (await self._channel.describe(name)).items()
            }
        except (grpc.aio.AioRpcError, ValueError, KeyError, TypeError) as error:
            self._tell_away(error)
            offers = {key: _away(offer) for key, offer in before.items()}
        else:
            self._away, self.is_discovered, self._silent_since = False, True, None
            # Side by side: one worker that is slow to describe itself does not hide the others.
            described = await asyncio.gather(*(self._offer(key, state) for key, state in states.items()))
            offers = dict(zip(states, described, strict=True))
        if offers != before:
            self.offers = offers
            self._changed()
        return bool(offers) and all(offer.state is not ModelState.LOADING for offer in offers.values())

    def _tell_away(self, error: Exception) -> None:
        for key, lives in self._lives.items():
            self._descriptions.forget(key)
            lives.forget()
        self._channel.forget_tokens()
        if not is_silence(error):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        if not self._away:
            self._away = True
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            _log.warning("TorchServe at %s does not answer as it should: %s", self._address.management, why)

    async def _offer(self, key: ModelVersion, state: WorkerState) -> Offer:
        now_s = time.monotonic()
        lives = self._lives.setdefault(key, Stability())
        lives.saw(state.ready_pids, now_s)
        if not state.ready_pids:
            self._descriptions.forget(key)
            return self._not_loaded(key)
        self._loading_since.pop(key, None)
        offer = await self._descriptions.offer(key, state.ready_pids)
        if offer is None:
            return replace(self._not_loaded(key), reason="its worker has not described itself yet")
        if offer.target is None:
            return offer
        if workers := lives.sound(now_s):
            return replace(offer, workers=workers)
        return replace(offer, state=ModelState.UNAVAILABLE, reason=lives.reason, workers=0)

    def _not_loaded(self, key: ModelVersion) -> Offer:
        since = self._loading_since.setdefault(key, time.monotonic())
        hopeless = time.monotonic() - since > _LOADING_S
        known = self.offers.get(key)
        name, version = key
        return Offer(
            name=name,
            version=version,
            model=known.model if known else None,
            state=ModelState.UNAVAILABLE if hopeless else ModelState.LOADING,
            reason=f"no worker has loaded for {_LOADING_S:g} s; TorchServe's log says why"
            if hopeless
            else self._loading,
        )


def _away(offer: Offer) -> Offer:
    return Offer(name=offer.name, version=offer.version, model=offer.model, numerics=offer.numerics,
                 state=ModelState.UNAVAILABLE, reason="TorchServe does not answer")  # fmt: skip


# FOLDED FROM service.workers.torchserve.replica:
# Whether workers stay alive: TorchServe calls a model healthy while its workers die and are started, over and
# over.


_WINDOW_S = 60.0
_DEATHS = 3  # of each worker, within the window: a loop, not an accident
_STABLE_S = 15.0


class Stability:
    """The lives of the workers of one model version, as its replica sees them from look to look."""

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}
        self._deaths_s: deque[float] = deque()
        self._most = 1

    def saw(self, pids: frozenset[int], now_s: float) -> None:
        """Take note of the workers that are ready now; more than before is growth, fewer or others is a death."""
        if self._since_s.keys() - pids:
            self._deaths_s.append(now_s)
        self._since_s = {pid: self._since_s.get(pid, now_s) for pid in pids}
        self._most = max(self._most, len(pids))
        while self._deaths_s and now_s - self._deaths_s[0] > _WINDOW_S:
            self._deaths_s.popleft()

    def sound(self, now_s: float) -> int:
        """How many workers can be relied on: all, or while they keep dying only those that lived a while."""
        if not self._keep_dying:
            return len(self._since_s)
        return sum(now_s - since_s >= _STABLE_S for since_s in self._since_s.values())

    @property
    def reason(self) -> str:
        """Why none can be relied on, when none can."""
        return f"its workers keep dying ({len(self._deaths_s)} times in the last minute); the worker's log says why"

    def forget(self) -> None:
        """Start anew: they all went with their TorchServe, which is not their fault."""
        self._since_s = {}

    @property
    def _keep_dying(self) -> bool:
        return len(self._deaths_s) >= _DEATHS * self._most


# FOLDED FROM service.workers.torchserve.replica:
# How much a replica has been given and not yet answered, of each target.


_UNKNOWN_S = 1e-6  # what a call whose cost nobody knows counts: enough for equal ones to alternate


class Load:
    """Calls in flight, and the time their workers are expected to take."""

    def __init__(self) -> None:
        self._costs: dict[Target, list[float]] = {}

    def add(self, call: Call) -> None:
        """Count a call."""
        self._costs.setdefault(call.target, []).append(max(call.cost_s or 0, _UNKNOWN_S))

    def remove(self, call: Call) -> None:
        """Count it no more."""
        costs = self._costs[call.target]
        costs.remove(max(call.cost_s or 0, _UNKNOWN_S))
        if not costs:
            del self._costs[call.target]

    def calls(self, target: Target) -> int:
        """How many calls are in flight."""
        return len(self._costs.get(target, ()))

    def seconds(self, target: Target) -> float:
        """What they cost together; summed anew each time, so that no rounding is left behind when they are gone."""
        return math.fsum(self._costs.get(target, ()))
