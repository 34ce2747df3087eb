"""The real worker pool: any number of TorchServe addresses, watched and called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import grpc
from google.protobuf.message import DecodeError

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import Call, Failure, ModelState, Reply, Target
from service.errors import NotReady, TooLate, WorkerFault, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer
from service.workers.torchserve.describe import description_to_offer
from service.workers.torchserve.wire import Address, TorchServeChannel, WorkerState, call_to_request, reply_to_domain

__all__ = ["TorchServePool"]

_log = logging.getLogger(__name__)

_PROBE_FAST_S, _PROBE_SLOW_S = 0.2, 2.0  # while something loads, and when all is settled
_DESCRIBE_S = 30.0
_LOADING_S = 120.0
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CHANGED = frozenset({"NUMERICS_MISMATCH", "DIGEST_MISMATCH", "MODEL_UNAVAILABLE"})


class TorchServePool:
    """Workers behind TorchServe.

    Args:
        addresses: where they are.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._replicas = [_Replica(address, self._tell) for address in addresses]
        self._watchers: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Begin to watch every address."""
        for replica in self._replicas:
            replica.start()

    async def close(self) -> None:
        """Stop watching and let go of the connections; TorchServe goes on."""
        await asyncio.gather(*(replica.close() for replica in self._replicas))

    def offers(self) -> tuple[Offer, ...]:
        """What every address offers."""
        return tuple(offer for replica in self._replicas for offer in replica.offers.values())

    def has_looked(self) -> bool:
        """Whether every address has told what it serves, at least once."""
        return all(replica.has_looked for replica in self._replicas)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever offers may have changed."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """How many ready workers a target has now."""
        return sum(replica.workers(target) for replica in self._replicas)

    def room(self, target: Target) -> int:
        """How many more calls its workers take now; see `WorkerPool.room`."""
        return sum(replica.room(target) for replica in self._replicas)

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Have the least busy worker do a call; see `WorkerPool.call`."""
        able = [replica for replica in self._replicas if replica.workers(call.target)]
        if not able:
            raise NotReady(f"{call.target.model.name} {call.target.model.version} has no ready worker")
        replica = min(able, key=lambda each: each.outstanding / each.workers(call.target))
        return await replica.call(call, timeout_s)

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


class _Replica:
    """One TorchServe address: what it offers, and how busy it is."""

    def __init__(self, address: Address, changed: Callable[[], None]) -> None:
        self._address = address
        self._channel = TorchServeChannel(address)
        self._changed = changed
        self._described: dict[tuple[str, str], frozenset[int]] = {}
        self._loading_since: dict[tuple[str, str], float] = {}
        self._look_now = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self.offers: dict[tuple[str, str], Offer] = {}
        self.outstanding = 0
        self.has_looked = False
        self._away = False

    def start(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._watch_forever())

    async def close(self) -> None:
        if self._watch:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self.offers = {}
        await self._channel.close()

    def workers(self, target: Target) -> int:
        offer = self.offers.get((target.model.name, target.model.version))
        return offer.workers if offer and offer.target == target else 0

    def room(self, target: Target) -> int:
        return max(0, CALLS_PER_WORKER * self.workers(target) - self.outstanding)

    async def call(self, call: Call, timeout_s: float) -> Reply:
        key = call.target.model
        self.outstanding += 1
        try:
            body = call_to_request(call).SerializeToString()
            answer = await self._channel.predict(key.name, key.version, body, timeout_s)
            reply = reply_to_domain(call, worker_pb2.WorkerReply.FromString(answer))
        except grpc.aio.AioRpcError as error:
            self._look_now.set()
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                self._channel.forget_tokens()
            raise _rpc_error(error, call) from error
        except DecodeError as error:
            raise WorkerFault("the worker's answer is not a worker.v1 reply") from error
        finally:
            self.outstanding -= 1
        self._refuse_strangers(call, reply)
        return reply

    def _refuse_strangers(self, call: Call, reply: Reply) -> None:
        """A worker that is not what its group said: another digest, other numerics, or one that failed its checks."""
        for outcome in reply.outcomes:
            if isinstance(outcome, Failure) and outcome.reason in _CHANGED:
                key = (call.target.model.name, call.target.model.version)
                self._described.pop(key, None)
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
            self._away, self.has_looked = False, True
            # Side by side: one worker that is slow to describe itself does not hide the others.
            described = await asyncio.gather(*(self._offer(key, state) for key, state in states.items()))
            offers = dict(zip(states, described, strict=True))
        if offers != before:
            self.offers = offers
            self._changed()
        return bool(offers) and all(offer.state is not ModelState.LOADING for offer in offers.values())

    def _tell_away(self, error: Exception) -> None:
        self._described.clear()
        self._channel.forget_tokens()
        if not self._away:
            self._away = True
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            _log.warning("TorchServe at %s does not answer as it should: %s", self._address.management, why)

    async def _offer(self, key: tuple[str, str], state: WorkerState) -> Offer:
        name, version = key
        known = self.offers.get(key)
        if not state.ready_pids:
            self._described.pop(key, None)
            return self._not_loaded(key, known)
        self._loading_since.pop(key, None)
        if known is not None and self._described.get(key) == state.ready_pids:
            return known
        request = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE)
        try:
            answer = await self._channel.predict(name, version, request.SerializeToString(), _DESCRIBE_S)
            offer = description_to_offer(
                name, version, worker_pb2.WorkerReply.FromString(answer), len(state.ready_pids)
            )
        except (grpc.aio.AioRpcError, DecodeError, WorkerFault, ValueError) as error:
            reason = f"its worker does not describe itself: {str(error)[:200]}"
            return Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason)
        self._described[key] = state.ready_pids
        return offer

    def _not_loaded(self, key: tuple[str, str], known: Offer | None) -> Offer:
        since = self._loading_since.setdefault(key, time.monotonic())
        hopeless = time.monotonic() - since > _LOADING_S
        reason = f"no worker has loaded for {_LOADING_S:g} s; TorchServe's log says why"
        name, version = key
        return Offer(
            name=name,
            version=version,
            model=known.model if known else None,
            state=ModelState.UNAVAILABLE if hopeless else ModelState.LOADING,
            reason=reason if hopeless else "workers are loading",
        )


def _away(offer: Offer) -> Offer:
    return Offer(name=offer.name, version=offer.version, model=offer.model, numerics=offer.numerics,
                 state=ModelState.UNAVAILABLE, reason="TorchServe does not answer")  # fmt: skip


def _rpc_error(error: grpc.aio.AioRpcError, call: Call) -> NotReady | TooLate | WorkerFault:
    """Translate TorchServe's statuses, which say INTERNAL or UNAVAILABLE for almost everything."""
    code, details = error.code(), error.details() or ""
    model = f"{call.target.model.name} {call.target.model.version}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate(f"no worker of {model} answered in time")
    if code is grpc.StatusCode.UNAVAILABLE and "Prediction failed" in details:
        return WorkerFault(f"the handler of {model} raised")
    if code in _UNREACHABLE:
        return WorkerLost(f"the TorchServe of {model} went away")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return WorkerLost(f"the TorchServe of {model} wants another token")
    if "has no worker to serve" in details or "Model not found" in details or "Worker died" in details:
        return WorkerLost(f"the worker of {model} went away")
    return WorkerFault(f"TorchServe refused a call of {model}: {code.name} {details[:200]}")
