"""Write a worker's messages: the outcome of each item, and the description of its model.

Finished work, errors and a card enter; messages of fount.worker.v1 and fount.v1 leave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.execution.batches import Work
from handlers.execution.errors import ItemError
from handlers.worker.requests import DTYPES

__all__ = ["add_outcome", "card_to_proto", "status_of"]

_CODES: Mapping[str, int] = {
    "CALL_TOO_LARGE": code_pb2.RESOURCE_EXHAUSTED,
    "OUT_OF_MEMORY": code_pb2.RESOURCE_EXHAUSTED,
    "DEADLINE_PASSED": code_pb2.DEADLINE_EXCEEDED,
    "MODEL_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "OPERATION_NOT_SUPPORTED": code_pb2.FAILED_PRECONDITION,
    "NUMERICS_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "DIGEST_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "MODEL_FAILED": code_pb2.INTERNAL,
    "WORKER_FAILED": code_pb2.INTERNAL,
    "NOT_FINITE": code_pb2.INTERNAL,
    "OUT_OF_RANGE": code_pb2.INTERNAL,
}  # every other reason means an invalid item


def status_of(error: ItemError) -> status_pb2.Status:
    """Build the status of an item or a row; a gateway decides by its reason and never parses the message."""
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain="fount"))
    code = _CODES.get(error.reason, code_pb2.INVALID_ARGUMENT)
    return status_pb2.Status(code=code, message=str(error), details=[detail])


def add_outcome(reply: worker_pb2.WorkerReply, item: Work | ItemError, request_id: str) -> None:
    """Append an item's outcome to a reply, in place: assigning a message to another would copy the values."""
    message = reply.items.add()
    match item:
        case (ItemError() as error) | Work(failure=ItemError() as error):
            message.status.CopyFrom(status_of(error))
        case Work(values=values):
            tensor = message.value
            if item.next_step is not None:
                message.carry.next_step = item.next_step
                tensor = message.carry.state
            tensor.dtype = model_pb2.DTYPE_UINT8 if values.dtype == np.uint8 else model_pb2.DTYPE_FLOAT32
            tensor.dims.extend(values.shape)
            tensor.data = values.astype(DTYPES[tensor.dtype], copy=False).tobytes()
            for row, fault in sorted(item.failed_rows.items()):
                returned = "NaN or infinite values" if fault == "NOT_FINITE" else "values beyond its range"
                remedy = f"for this row (request {request_id!r}); try another index or label"
                error = ItemError(fault, f"the model returned {returned} {remedy}")
                message.row_errors.add(row=row, status=status_of(error))


def card_to_proto(card: Card, model_digest: str, reason: str) -> model_pb2.Model:
    """Convert a card to the public message.

    Args:
        card: the card.
        model_digest: of the loaded model; "" if none is loaded.
        reason: why the model is unavailable; "" if it is ready.
    """
    sample, recipe = card.sample, card.recipe
    model = model_pb2.Model(
        ref=model_pb2.ModelRef(name=card.name, version=card.version, digest=model_digest),
        state=model_pb2.Model.STATE_UNAVAILABLE if reason else model_pb2.Model.STATE_READY,
        state_reason=reason,
        family=card.family.name,
        description=card.description,
        operations=[model_pb2.Operation.Value(f"OPERATION_{name}") for name in card.operations],
        sample_spec=model_pb2.SampleSpec(  # of the default encoding
            modality=model_pb2.SampleSpec.MODALITY_IMAGE,
            dtype=model_pb2.DTYPE_UINT8,
            dims=[sample.height, sample.width, sample.channels],
            layout=model_pb2.SampleSpec.LAYOUT_HWC,
            value_range=model_pb2.ValueRange(min=0, max=255),
            encoding=model_pb2.ENCODING_UINT8,
        ),
        parameters=[
            model_pb2.ParameterSpec(
                name=name,
                range=model_pb2.ValueRange(min=parameter.min, max=parameter.max),
                default_value=parameter.default,
                description=parameter.description,
            )
            for name, parameter in card.parameters.items()
        ],
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{name}") for name in card.encodings],
        limits=model_pb2.Limits(max_count=card.limits.max_count, max_labels=card.limits.max_labels),
        quality=[
            model_pb2.Quality(
                metric=quality.metric,
                value=quality.value,
                interval=model_pb2.ValueRange(min=quality.interval[0], max=quality.interval[1]),
                real_value=quality.real_value,
                method=quality.method,
            )
            for quality in card.quality
        ],
        intended_use=card.intended_use,
        data_licence=card.data_licence,
        value_range=model_pb2.ValueRange(min=sample.value_range[0], max=sample.value_range[1]),
    )
    if card.classes:
        labels = [model_pb2.Label(id=i, name=name) for i, name in enumerate(card.classes)]
        model.condition.CopyFrom(model_pb2.ConditionSchema(labels=labels, prior=card.prior))
    if recipe is not None:
        origin = f"{recipe.name}, seed {recipe.seed}, {recipe.steps} steps"
        model.recipe = f"{origin}, data {recipe.data} {recipe.data_digest}"
    return model
