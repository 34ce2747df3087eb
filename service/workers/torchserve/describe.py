"""From a worker's description of itself to an offer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import grpc
from google.protobuf.message import DecodeError

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import Encoding, ModelKey, ModelState, Operation, ParameterRange, QualityFigure, ServedModel
from service.errors import WorkerFault
from service.workers import Offer
from service.workers.torchserve.channel import TorchServeChannel
from service.workers.torchserve.status import is_no_room

__all__ = ["Descriptions", "ModelVersion", "card_to_model", "description_to_offer"]


_KNOWN = frozenset(int(each) for each in Operation)


def description_to_offer(name: str, version: str, reply: worker_pb2.WorkerReply, workers: int) -> Offer:
    """The offer of the workers that sent a DESCRIBE reply.

    Raises:
        WorkerFault: it describes something else, or nothing.
    """
    told = reply.description
    if (told.model.ref.name, told.model.ref.version) != (name, version):
        raise WorkerFault(
            f"the worker of {name} {version} describes {told.model.ref.name!r} {told.model.ref.version!r}"
        )
    ready = told.model.state == model_pb2.Model.STATE_READY
    return Offer(
        name=name,
        version=version,
        model=card_to_model(told.model) if ready or told.model.sample_spec.dims else None,
        numerics=told.numerics,
        state=ModelState.READY if ready else ModelState.UNAVAILABLE,
        reason="" if ready else told.model.state_reason or "its worker says it cannot serve",
        workers=workers if ready else 0,
        batch_seconds=_batch_seconds(told),
    )


def card_to_model(card: model_pb2.Model) -> ServedModel:
    """The domain value of a model's message.

    Raises:
        WorkerFault: its sample dims are not height, width, channels.
    """
    dims = tuple(card.sample_spec.dims)
    if len(dims) != 3:
        raise WorkerFault(f"{card.ref.name} has samples of dims {dims}, not height, width, channels")
    native = card.value_range
    return ServedModel(
        key=ModelKey(name=card.ref.name, version=card.ref.version, digest=card.ref.digest),
        operations=frozenset(Operation(int(each)) for each in card.operations if int(each) in _KNOWN),
        labels=tuple(label.name for label in card.condition.labels),
        prior=tuple(card.condition.prior),
        sample_dims=(dims[0], dims[1], dims[2]),
        value_range=(native.min, native.max),
        parameters={each.name: _range(each) for each in card.parameters},
        encodings=frozenset(each for each in Encoding if int(each) in {int(known) for known in card.encodings}),
        max_count=card.limits.max_count,
        max_labels=card.limits.max_labels,
        card=card.SerializeToString(),
        quality=tuple(
            QualityFigure(metric=each.metric, value=each.value, interval=(each.interval.min, each.interval.max))
            for each in card.quality
        ),
    )


def _range(spec: model_pb2.ParameterSpec) -> ParameterRange:
    default = spec.default_value if spec.HasField("default_value") else None
    return ParameterRange(minimum=spec.range.min, maximum=spec.range.max, default=default)


def _batch_seconds(told: worker_pb2.Description) -> dict[int, float]:
    """Only what was measured: a time that is none would make a cost of nothing of it."""
    pairs = zip(told.exec_batch_sizes, told.exec_batch_seconds, strict=False)
    return {size: seconds for size, seconds in pairs if math.isfinite(seconds) and seconds > 0}


# FOLDED FROM service.workers.torchserve.describe:
# What the workers of one TorchServe said of themselves, asked again whenever they change.


_ANSWER_S = 30.0  # a description waits behind the calls that are queued
_PATIENCE_S = 1.0  # how long a look waits for it

ModelVersion = tuple[str, str]
"""Name and version."""


class Descriptions:
    """The last word of each model version's workers.

    Args:
        channel: where they are.
        answered: called when an answer came after nobody waited for it any more.
    """

    def __init__(self, channel: TorchServeChannel, answered: Callable[[], None]) -> None:
        self._channel = channel
        self._answered = answered
        self._told: dict[ModelVersion, tuple[frozenset[int], Offer]] = {}
        self._asking: dict[ModelVersion, asyncio.Task[None]] = {}

    async def offer(self, key: ModelVersion, pids: frozenset[int]) -> Offer | None:
        """What these workers offer; None while none of them has said so. Soon back: it does not wait for a slow one."""
        told = self._told.get(key)
        if told is None or told[0] != pids:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key, pids))
            if not (await asyncio.wait([asking], timeout=_PATIENCE_S))[0]:
                asking.add_done_callback(lambda _: self._answered())
        told = self._told.get(key)
        is_theirs = told is not None and (not told[0] or told[0] & pids)
        return told[1] if told and is_theirs else None

    def forget(self, key: ModelVersion) -> None:
        """Ask again before anything is said of it."""
        self._told.pop(key, None)

    async def close(self) -> None:
        """Ask no more."""
        asking = list(self._asking.values())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        self._told.clear()

    async def _ask(self, key: ModelVersion, pids: frozenset[int]) -> None:
        try:
            self._told[key] = (pids, await self._describe(*key, len(pids)))
        except (grpc.aio.AioRpcError, DecodeError, WorkerFault, ValueError) as error:
            known = self._told.get(key)
            if known is not None and known[0] & pids:
                return  # what the others said holds until the newcomer is heard
            if isinstance(error, grpc.aio.AioRpcError) and is_no_room(error):
                return  # busy, not broken: the next look asks again
            reason = f"its worker does not describe itself: {str(error)[:200]}"
            offer = Offer(name=key[0], version=key[1], state=ModelState.UNAVAILABLE, reason=reason)
            self._told[key] = (frozenset(), offer)
        finally:
            del self._asking[key]

    async def _describe(self, name: str, version: str, workers: int) -> Offer:
        request = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE)
        answer = await self._channel.predict(name, version, request.SerializeToString(), _ANSWER_S)
        return description_to_offer(name, version, worker_pb2.WorkerReply.FromString(answer), workers)
