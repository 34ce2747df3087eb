"""From a worker's description of itself to an offer."""

from __future__ import annotations

import math

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import Encoding, ModelKey, ModelState, Operation, ParameterRange, ServedModel
from service.errors import WorkerFault
from service.workers import Offer

__all__ = ["card_to_model", "description_to_offer"]

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
    )


def _range(spec: model_pb2.ParameterSpec) -> ParameterRange:
    default = spec.default_value if spec.HasField("default_value") else None
    return ParameterRange(minimum=spec.range.min, maximum=spec.range.max, default=default)


def _batch_seconds(told: worker_pb2.Description) -> dict[int, float]:
    """Only what was measured: a time that is none would make a cost of nothing of it."""
    pairs = zip(told.exec_batch_sizes, told.exec_batch_seconds, strict=False)
    return {size: seconds for size, seconds in pairs if math.isfinite(seconds) and seconds > 0}
