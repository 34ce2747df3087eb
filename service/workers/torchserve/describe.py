"""Read the descriptions of workers: each replica asks its workers what they serve, and makes offers of the replies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

import grpc
from google.protobuf.message import DecodeError

from fount.names import normal_name
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import (
    ConditionKind,
    Encoding,
    Modality,
    ModelKey,
    ModelState,
    Operation,
    ParameterRange,
    QualityFigure,
    ServedModel,
)
from service.errors import WorkerFault
from service.workers import Offer
from service.workers.torchserve.channel import TorchServeChannel, says_no_worker

__all__ = ["Descriptions", "ModelVersion", "card_to_model", "description_to_offer"]

_DESCRIBE_TIMEOUT_S = 30.0  # the request waits behind the calls that are queued
_WAIT_S = 1.0  # how long a probe waits for it

ModelVersion = tuple[str, str]
"""Name and version."""

_KNOWN = frozenset(int(each) for each in Operation)


def description_to_offer(name: str, version: str, reply: worker_pb2.WorkerReply, workers: int) -> Offer:
    """Make the offer of the workers that sent a DESCRIBE reply.

    Raises:
        WorkerFault: it describes another model, or none.
    """
    description = reply.description
    card = description.model
    if (card.ref.name, card.ref.version) != (name, version):
        raise WorkerFault(f"the worker of {name} {version} describes {card.ref.name!r} {card.ref.version!r}")
    ready = card.state == model_pb2.Model.STATE_READY
    model = card_to_model(card) if ready or card.sample_spec.dims else None
    return Offer(
        name=name,
        version=version,
        model=model,
        numerics=description.numerics,
        state=ModelState.READY if ready else ModelState.UNAVAILABLE,
        reason="" if ready else card.state_reason or "its worker reports that it cannot serve",
        workers=workers if ready else 0,
        batch_seconds={} if model is None else _batch_seconds(description, model),
    )


def card_to_model(card: model_pb2.Model) -> ServedModel:
    """Convert a model's message.

    Raises:
        WorkerFault: its sample dims are neither height, width, channels nor a length; or its texts have no limit.
    """
    modality, dims = _modality_and_dims(card)
    native = card.value_range
    encodings = {int(each) for each in card.encodings}
    return ServedModel(
        key=ModelKey(name=card.ref.name, version=card.ref.version, digest=card.ref.digest),
        operations=frozenset(Operation(int(each)) for each in card.operations if int(each) in _KNOWN),
        labels=tuple(normal_name(label.name) for label in card.condition.labels),
        prior=tuple(card.condition.prior),
        modality=modality,
        sample_dims=dims,
        value_range=(native.min, native.max),
        parameters={each.name: _range(each) for each in card.parameters},
        encodings=frozenset(each for each in Encoding if each in encodings and _gives(modality, each)),
        max_count=card.limits.max_count,
        max_labels=card.limits.max_labels,
        card=card.SerializeToString(),
        quality=tuple(
            QualityFigure(metric=each.metric, value=each.value, interval=(each.interval.min, each.interval.max))
            for each in card.quality
        ),
        latent_dim=card.latent_dim,
        latent_spread=card.latent_spread,
        draw_steps=max(1, card.draw_steps),
        score_columns=tuple(column.name for column in card.score_columns),
        directions={each.name: tuple(each.vector) for each in card.directions},
        conditions=frozenset(each for each in ConditionKind if each in {int(known) for known in card.conditions}),
        prefix_unit=card.prefix_unit,
        input_dims=tuple(card.input_spec.dims),
    )


def _modality_and_dims(card: model_pb2.Model) -> tuple[Modality, tuple[int, ...]]:
    dims, limit = tuple(card.sample_spec.dims), card.limits.max_text_bytes
    if card.sample_spec.modality == model_pb2.SampleSpec.MODALITY_TEXT:
        if not limit:
            raise WorkerFault(f"{card.ref.name} has samples of text, and its card has no limits.max_text_bytes")
        return Modality.TEXT, (limit,)
    if len(dims) not in (1, 3):
        raise WorkerFault(f"{card.ref.name} has samples of dims {dims}, neither height, width, channels nor a length")
    return Modality.VECTOR if len(dims) == 1 else Modality.IMAGE, dims


def _gives(modality: Modality, encoding: Encoding) -> bool:
    """Whether samples can have an encoding; texts have the one of bytes."""
    return modality is not Modality.TEXT or encoding is Encoding.UINT8


def _range(spec: model_pb2.ParameterSpec) -> ParameterRange:
    default = spec.default_value if spec.HasField("default_value") else None
    return ParameterRange(minimum=spec.range.min, maximum=spec.range.max, default=default)


def _batch_seconds(description: worker_pb2.Description, model: ServedModel) -> dict[int, float]:
    """Return the seconds of one step; only valid measurements: an invalid time would become an invalid cost.

    A worker measures whole draws, and one batch of every operation.
    """
    parts = (model.default_parameters.steps or model.draw_steps) * max(1, len(model.operations))
    pairs = zip(description.exec_batch_sizes, description.exec_batch_seconds, strict=False)
    return {size: seconds / parts for size, seconds in pairs if math.isfinite(seconds) and seconds > 0}


class Descriptions:
    """The latest offer of each model version's workers at one address.

    Args:
        answered: called when a reply arrived after `offer` had stopped waiting for it.

    Attributes:
        addresses: where workers of any model can be called directly, by process id; of the latest description.
    """

    def __init__(self, channel: TorchServeChannel, answered: Callable[[], None]) -> None:
        self._channel = channel
        self._answered = answered
        self._known: dict[ModelVersion, tuple[frozenset[int], Offer]] = {}  # with the workers it is of
        self.addresses: Mapping[int, str] = {}
        self._requests: dict[ModelVersion, asyncio.Task[None]] = {}

    async def offer(self, key: ModelVersion, pids: frozenset[int]) -> Offer | None:
        """Return the offer of these workers; None while none of them has described it, or is slow to do so."""
        known = self._known.get(key)
        if known is None or known[0] != pids:
            request = self._requests.get(key)
            if request is None:
                request = self._requests[key] = asyncio.get_running_loop().create_task(self._request(key, pids))
            if not (await asyncio.wait([request], timeout=_WAIT_S))[0]:
                request.add_done_callback(lambda _: self._answered())
        known = self._known.get(key)
        is_theirs = known is not None and (not known[0] or known[0] & pids)
        return known[1] if known and is_theirs else None

    def forget(self, key: ModelVersion) -> None:
        """Request a new description before the next offer."""
        self._known.pop(key, None)

    async def close(self) -> None:
        """Cancel the requests in flight."""
        requests = list(self._requests.values())
        for each in requests:
            each.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._known.clear()

    async def _request(self, key: ModelVersion, pids: frozenset[int]) -> None:
        request = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE).SerializeToString()
        try:
            answer = await self._channel.predict(*key, request, _DESCRIBE_TIMEOUT_S)
            reply = worker_pb2.WorkerReply.FromString(answer)
            self.addresses = {each.pid: each.address for each in reply.description.processes}
            self._known[key] = (pids, description_to_offer(*key, reply, len(pids)))
        except (grpc.aio.AioRpcError, DecodeError, WorkerFault, ValueError) as error:
            known = self._known.get(key)
            if known is not None and known[0] & pids:
                return  # the earlier description holds for the workers that remain
            if isinstance(error, grpc.aio.AioRpcError) and says_no_worker(error):
                return  # busy, not broken: the next probe requests it again
            reason = f"its worker does not describe itself: {str(error)[:200]}"
            offer = Offer(name=key[0], version=key[1], state=ModelState.UNAVAILABLE, reason=reason)
            self._known[key] = (frozenset(), offer)
        finally:
            del self._requests[key]
