"""Items: what a gateway asks for, checked against the card and turned into rows; and outcomes, turned into its answer.

A gateway has checked requests already, so whatever is refused here is a mistake of one item, and is answered for that
item alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.rpc import code_pb2, status_pb2
from numpy.typing import NDArray

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.execution.batches import Outcome, RowFault, Work
from handlers.execution.network import Operation
from handlers.execution.pixels import Float32s, Uint8s, floats_to_uint8, uint8_to_floats
from handlers.execution.rows import ImageRows, Int64s, SampleRows
from handlers.execution.stepping import Cutting
from handlers.statuses import status_of
from handlers.worker.budget import MAX_CALL_BYTES, MAX_CALL_ROWS, Budget, ItemError, check_size
from handlers.worker.manipulations import read_manipulation
from handlers.worker.ranges import check_range, read_addresses

__all__ = ["MAX_CALL_BYTES", "MAX_CALL_ROWS", "Budget", "ItemError", "add_outcome", "read_work"]

_DTYPES: Mapping[int, np.dtype[Any]] = {
    model_pb2.DTYPE_UINT8: np.dtype(np.uint8),
    model_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
}


def read_work(
    item: worker_pb2.WorkerItem, operation: Operation, card: Card, budget: Budget, cutting: Cutting | None = None
) -> Work:
    """Turn an item into work.

    Args:
        item: what is asked for.
        operation: of the call.
        card: the model's.
        budget: what the call may still hold.
        cutting: how the call cuts draws; None when they cannot be cut.

    Raises:
        ItemError: it cannot be done; nothing of it was kept, nor taken from the budget.
    """
    if item.HasField("carry") and cutting is None:
        raise ItemError("CARRY_NOT_TAKEN", f"{operation} of this model cannot be cut; leave carry unset")
    if operation == "SAMPLE":
        return _read_samples(item, card, budget, cutting)
    if operation == "TRANSFORM":
        return Work(rows=read_manipulation(item, budget), encode=_as_floats)
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, model_pb2.DTYPE_FLOAT32):
        raise ItemError("DTYPE_WRONG", f"{operation} gives FLOAT32 only; leave dtype unset")
    return Work(rows=_read_images(item, card, budget), encode=_as_floats)


def add_outcome(reply: worker_pb2.WorkerReply, outcome: Outcome, request_id: str) -> None:
    """Put what became of an item into a reply, in place: a message that is given to another is copied."""
    told = reply.items.add()
    if outcome.failure is not None or outcome.values is None:
        told.status.CopyFrom(outcome.failure or status_pb2.Status())
        return
    if outcome.next_step:
        told.carry.next_step = outcome.next_step
    values, tensor = outcome.values, told.carry.state if outcome.next_step else told.value
    tensor.dtype = model_pb2.DTYPE_UINT8 if values.dtype == np.uint8 else model_pb2.DTYPE_FLOAT32
    tensor.dims.extend(values.shape)
    tensor.data = values.astype(_DTYPES[tensor.dtype], copy=False).tobytes()
    for row, fault in sorted(outcome.failed_rows.items()):
        told.row_errors.add(row=row, status=_status_of_row(fault, request_id))


def _status_of_row(fault: RowFault, request_id: str) -> status_pb2.Status:
    gave = "NaN or infinite values" if fault == "NOT_FINITE" else "values beyond its range"
    message = f"the model gave {gave} for this row (request {request_id!r}); try another index or label"
    return status_of(code_pb2.INTERNAL, fault, message)


def _read_samples(item: worker_pb2.WorkerItem, card: Card, budget: Budget, cutting: Cutting | None) -> Work:
    if item.WhichOneof("kind") != "range":
        raise ItemError("KIND_WRONG", "SAMPLE takes a range of addresses; set item.range")
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, *_DTYPES):
        raise ItemError("DTYPE_WRONG", f"dtype {item.dtype} is unknown; set UINT8 or FLOAT32")
    wanted = item.range
    check_range(wanted)
    as_uint8 = item.dtype == model_pb2.DTYPE_UINT8
    row_bytes = math.prod(_image_shape(card)) * (1 if as_uint8 else 4)
    # The larger of both at every step, so that a draw that was begun can be gone on with.
    size_bytes = wanted.count * max(row_bytes, cutting.state_bytes if cutting else 0)
    check_size(wanted.count, size_bytes)
    labels = _read_labels(wanted, len(card.classes))
    states = _read_states(item, cutting) if cutting else None
    budget.take(wanted.count, size_bytes)
    rows = SampleRows(addresses=read_addresses(wanted), labels=labels, states=states)
    if cutting and cutting.stretch.stop is not None:
        return Work(rows=rows, encode=_as_floats, next_step=cutting.stretch.stop)
    value_range = card.sample.value_range
    return Work(
        rows=rows,
        encode=(lambda floats: floats_to_uint8(floats, value_range)) if as_uint8 else _as_floats,
        value_range=value_range,
    )


def _read_labels(wanted: worker_pb2.Range, classes: int) -> Int64s | None:
    if not classes:
        if len(wanted.labels):
            raise ItemError("LABEL_NOT_TAKEN", "the model is unconditional; leave labels empty")
        return None
    if len(wanted.labels) not in (1, wanted.count):
        given = f"{len(wanted.labels)} labels for {wanted.count} rows"
        raise ItemError("LABELS_WRONG", f"{given}; give one for all, or one a row")
    labels = np.fromiter(wanted.labels, np.int64, len(wanted.labels))
    if labels.max() >= classes:
        raise ItemError("LABEL_UNKNOWN", f"label {labels.max()} is unknown; labels are 0 to {classes - 1}")
    return np.broadcast_to(labels, (wanted.count,)).copy()


def _read_states(item: worker_pb2.WorkerItem, cutting: Cutting) -> Float32s | None:
    """Read where an earlier call left an item's draws, NaN and all; None when they begin."""
    at = item.carry.next_step
    if item.HasField("carry") and not 1 <= at < cutting.steps:
        raise ItemError("STEP_WRONG", f"carry.next_step is {at}; it must be above 0 and below {cutting.steps}")
    if at != cutting.first:
        other = f"the item is at step {at}, the first of its call at {cutting.first}"
        raise ItemError("STEP_NOT_SHARED", f"{other}; send it with others at its step")
    if not at:
        return None
    state, shape = item.carry.state, (item.range.count, *cutting.state_shape)
    if state.dtype != model_pb2.DTYPE_FLOAT32:
        raise ItemError("DTYPE_WRONG", f"carry.state.dtype is {state.dtype}; states are FLOAT32")
    if tuple(state.dims) != shape:
        raise ItemError("SHAPE_WRONG", f"carry.state has dims {list(state.dims)}; those of this item are {list(shape)}")
    if len(state.data) != 4 * math.prod(shape):
        counted = f"carry.state has {len(state.data)} bytes of data, its dims say {4 * math.prod(shape)}"
        raise ItemError("DATA_WRONG", f"{counted}; send row-major float32")
    return np.frombuffer(state.data, "<f4").reshape(shape)


def _read_images(item: worker_pb2.WorkerItem, card: Card, budget: Budget) -> ImageRows:
    if item.WhichOneof("kind") != "tensor":
        raise ItemError("KIND_WRONG", "images are read from a tensor; set item.tensor")
    tensor = item.tensor
    if tensor.dtype not in _DTYPES:
        raise ItemError("DTYPE_WRONG", f"tensor.dtype {tensor.dtype} is unknown; set UINT8 or FLOAT32")
    shape = (tensor.dims[0] if tensor.dims else 0, *_image_shape(card))
    if tuple(tensor.dims) != shape or not shape[0]:
        expected = ", ".join(["n", *map(str, shape[1:])])
        raise ItemError(
            "SHAPE_WRONG", f"images have dims {list(tensor.dims)}; this model reads ({expected}), n above 0"
        )
    dtype = _DTYPES[tensor.dtype]
    if len(tensor.data) != math.prod(shape) * dtype.itemsize:
        counted = f"{len(tensor.data)} bytes of data, dims and dtype say {math.prod(shape) * dtype.itemsize}"
        raise ItemError("DATA_WRONG", f"{counted}; send row-major {dtype.name}")
    size_bytes = math.prod(shape) * 4
    check_size(shape[0], size_bytes)
    images = _decode(np.frombuffer(tensor.data, dtype).reshape(shape), card.sample.value_range)
    budget.take(shape[0], size_bytes)
    return ImageRows(images=images)


def _decode(images: Float32s | Uint8s, value_range: tuple[float, float]) -> Float32s:
    if images.dtype == np.uint8:
        return uint8_to_floats(np.asarray(images, np.uint8), value_range)
    floats = np.asarray(images, np.float32)
    if not np.isfinite(floats).all():
        raise ItemError("PIXELS_NOT_FINITE", "a pixel is NaN or infinite; send finite floats")
    return floats


def _image_shape(card: Card) -> Sequence[int]:
    return card.sample.height, card.sample.width, card.sample.channels


def _as_floats(floats: Float32s) -> NDArray[np.float32]:
    return floats
