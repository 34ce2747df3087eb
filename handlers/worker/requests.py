"""Parse the items of a call into work: checked against the card and converted to rows.

A WorkerRequest's items and parameters enter; `Work` and a `Draw` leave. A gateway has validated requests already, so an
invalid item is refused alone, with an `ItemError`. A call is bounded as a whole, so that a worker's memory is; an item
beyond the bounds is refused before anything of its size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fount.transform_columns import COLUMNS
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card, ParameterName
from handlers.execution.batches import Work
from handlers.execution.errors import ItemError
from handlers.execution.network import Operation, StepPlan
from handlers.execution.pixels import Float32s, Values, floats_to_uint8, uint8_to_floats
from handlers.execution.rows import ImageRows, Int64s, ManipulationRows, Rows, SampleRows
from handlers.family import Draw
from handlers.worker.given import read_given
from handlers.worker.tensors import (
    DTYPES,
    CallCapacity,
    check_data,
    check_range,
    check_size,
    read_addresses,
    read_float32,
)

__all__ = ["read_draw", "read_work"]

_MAX_PARAMETER = 1000.0  # beyond anything that a policy can draw; keeps every pixel finite
_MIN_ZOOM = 0.001
_ZOOM = COLUMNS.index("zoom_factor")
_WHOLE_NUMBERS: tuple[ParameterName, ...] = ("top_k", "steps", "importance_samples")


def read_work(
    item: worker_pb2.WorkerItem,
    operation: Operation,
    card: Card,
    capacity: CallCapacity,
    steps: StepPlan | None = None,
    *,
    is_conditioned: bool = False,
) -> Work:
    """Parse an item.

    Args:
        item: of the request.
        operation: of the call.
        card: the model's.
        capacity: the remaining capacity of the call; reduced by the item.
        steps: the steps that the call takes; None for draws that cannot be preempted.
        is_conditioned: whether the model can sample given values.

    Raises:
        ItemError: the item is invalid; it took nothing from the capacity.
    """
    if item.HasField("carry") and steps is None:
        raise ItemError("CARRY_NOT_TAKEN", f"{operation} of this model cannot be preempted; leave carry unset")
    if not item.HasField("given") and (operation == "SAMPLE" or item.HasField("carry")):
        return _read_samples(item, card, capacity, steps)
    if operation in ("SAMPLE", "DECODE", "TRANSLATE"):
        if operation == "SAMPLE" and not is_conditioned:
            raise ItemError("KIND_WRONG", "this model samples without given values; set item.range")
        _check_starts(item, steps)
        encode = _encoding(item, card)
        rows = read_given(item, operation, card, capacity, state_bytes=steps.state_bytes if steps else 0)
        return _work_of_samples(rows, encode, card, steps)
    if operation == "TRANSFORM":
        return Work(rows=_read_manipulation(item, capacity), encode=_keep_floats)
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, model_pb2.DTYPE_FLOAT32):
        raise ItemError("DTYPE_WRONG", f"{operation} gives FLOAT32 only; leave dtype unset")
    if operation in ("ENCODE", "SCORE"):
        return Work(rows=read_given(item, operation, card, capacity), encode=_keep_floats)
    return Work(rows=_read_images(item, card, capacity), encode=_keep_floats)


def read_draw(parameters: sampling_pb2.Parameters, card: Card) -> Draw:
    """Parse the sampling parameters of a call; those unset have the card's defaults.

    Raises:
        ItemError: one is not in the card, or outside its range.
    """
    values: dict[str, Any] = {name: _read_parameter(parameters, name, card) for name in get_args(ParameterName)}
    return Draw(**values | {name: int(values[name]) for name in _WHOLE_NUMBERS if values[name] is not None})


def _read_parameter(parameters: sampling_pb2.Parameters, name: ParameterName, card: Card) -> float | None:
    known = card.parameters.get(name)
    if not parameters.HasField(name):
        return known.default if known else None
    value = float(getattr(parameters, name))
    if known is None:
        taken = ", ".join(card.parameters) or "none"
        raise ItemError("PARAMETER_UNKNOWN", f"the model does not take {name}; it takes {taken}")
    if not math.isfinite(value) or not known.min <= value <= known.max:
        raise ItemError("PARAMETER_OUT_OF_RANGE", f"{name} is {value:g}; it must be {known.min:g} to {known.max:g}")
    return value


def _read_samples(item: worker_pb2.WorkerItem, card: Card, capacity: CallCapacity, steps: StepPlan | None) -> Work:
    if item.WhichOneof("kind") != "range":
        raise ItemError("KIND_WRONG", "samples, and draws that resume, take a range of addresses; set item.range")
    encode = _encoding(item, card)
    requested = item.range
    check_range(requested)
    row_bytes = math.prod(card.sample.shape) * (1 if item.dtype == model_pb2.DTYPE_UINT8 else 4)
    # The larger of both at every step, so that a draw that was started can always be resumed.
    size_bytes = requested.count * max(row_bytes, steps.state_bytes if steps else 0)
    check_size(requested.count, size_bytes)
    labels = _read_labels(requested, len(card.classes))
    states = _read_states(item, steps) if steps else None
    capacity.reserve(requested.count, size_bytes)
    rows = SampleRows(addresses=read_addresses(requested), labels=labels, states=states)
    return _work_of_samples(rows, encode, card, steps)


def _work_of_samples(rows: Rows, encode: Callable[[Float32s], Values], card: Card, steps: StepPlan | None) -> Work:
    """Return the work of rows that are drawn, or whose draws are preempted."""
    if steps and steps.stop < steps.total:
        return Work(rows=rows, encode=_keep_floats, next_step=steps.stop)
    return Work(rows=rows, encode=encode, value_range=card.sample.value_range)


def _check_starts(item: worker_pb2.WorkerItem, steps: StepPlan | None) -> None:
    """Check that a draw of given values starts: a preempted one has them in its state."""
    if item.HasField("carry"):
        raise ItemError("CARRY_NOT_TAKEN", "the state of a preempted draw has the given values; set item.range")
    if steps and steps.first:
        other = f"the item is at step 0, the first of its call at {steps.first}"
        raise ItemError("STEP_NOT_SHARED", f"{other}; send it with others at its step")


def _encoding(item: worker_pb2.WorkerItem, card: Card) -> Callable[[Float32s], Values]:
    """Choose how samples become the requested element type."""
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, *DTYPES):
        raise ItemError("DTYPE_WRONG", f"dtype {item.dtype} is unknown; set UINT8 or FLOAT32")
    if item.dtype != model_pb2.DTYPE_UINT8:
        return _keep_floats
    if card.sample.modality == "vector":
        raise ItemError("DTYPE_WRONG", "vectors are FLOAT32 only; leave dtype unset")
    return partial(floats_to_uint8, value_range=card.sample.value_range)


def _read_labels(requested: worker_pb2.Range, classes: int) -> Int64s | None:
    if not classes:
        if requested.labels:
            raise ItemError("LABEL_NOT_TAKEN", "the model is unconditional; leave labels empty")
        return None
    if len(requested.labels) not in (1, requested.count):
        given = f"{len(requested.labels)} labels for {requested.count} rows"
        raise ItemError("LABELS_WRONG", f"{given}; send one for all, or one for each row")
    labels = np.fromiter(requested.labels, np.int64, len(requested.labels))
    if labels.max() >= classes:
        raise ItemError("LABEL_UNKNOWN", f"label {labels.max()} is unknown; labels are 0 to {classes - 1}")
    return np.broadcast_to(labels, (requested.count,)).copy()


def _read_states(item: worker_pb2.WorkerItem, steps: StepPlan) -> Float32s | None:
    """Read the states of an item's preempted draws, NaN included; None for new draws."""
    at = item.carry.next_step
    if item.HasField("carry") and not 1 <= at < steps.total:
        raise ItemError("STEP_WRONG", f"carry.next_step is {at}; it must be above 0 and below {steps.total}")
    if at != steps.first:
        other = f"the item is at step {at}, the first of its call at {steps.first}"
        raise ItemError("STEP_NOT_SHARED", f"{other}; send it with others at its step")
    if not at:
        return None
    return read_float32("carry.state", item.carry.state, (item.range.count, *steps.state_shape))


def _read_images(item: worker_pb2.WorkerItem, card: Card, capacity: CallCapacity) -> ImageRows:
    if item.WhichOneof("kind") != "tensor":
        raise ItemError("KIND_WRONG", "images are read from a tensor; set item.tensor")
    tensor = item.tensor
    if tensor.dtype not in DTYPES:
        raise ItemError("DTYPE_WRONG", f"tensor.dtype {tensor.dtype} is unknown; set UINT8 or FLOAT32")
    if tensor.dtype == model_pb2.DTYPE_UINT8 and card.sample.modality == "vector":
        raise ItemError("DTYPE_WRONG", "vectors are FLOAT32; set tensor.dtype")
    shape = (tensor.dims[0] if tensor.dims else 0, *card.sample.shape)
    if tuple(tensor.dims) != shape or not shape[0]:
        expected = ", ".join(["n", *map(str, shape[1:])])
        message = f"images have dims {list(tensor.dims)}; this model reads ({expected}), n above 0"
        raise ItemError("SHAPE_WRONG", message)
    dtype = DTYPES[tensor.dtype]
    check_data("tensor", len(tensor.data), math.prod(shape) * dtype.itemsize, dtype.name)
    size_bytes = math.prod(shape) * 4
    check_size(shape[0], size_bytes)
    values = np.frombuffer(tensor.data, dtype).reshape(shape)
    if values.dtype == np.uint8:
        images = uint8_to_floats(values, card.sample.value_range)
    else:
        images = np.asarray(values, np.float32)
        if not np.isfinite(images).all():
            raise ItemError("PIXELS_NOT_FINITE", "a pixel is NaN or infinite; send finite floats")
    capacity.reserve(shape[0], size_bytes)
    return ImageRows(images=images)


def _read_manipulation(item: worker_pb2.WorkerItem, capacity: CallCapacity) -> ManipulationRows:
    if item.WhichOneof("kind") != "manipulation":
        raise ItemError("KIND_WRONG", "TRANSFORM takes images with parameters; set item.manipulation")
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, model_pb2.DTYPE_UINT8):
        raise ItemError("DTYPE_WRONG", "TRANSFORM gives UINT8 only; leave dtype unset")
    requested = item.manipulation
    data = requested.images.data  # read once: each access copies
    shape = _manipulation_shape(requested.images, len(data), capacity)
    rows, size_bytes = requested.images.dims[0], 4 * math.prod(requested.images.dims)
    check_size(rows, size_bytes)
    table = _read_table(requested.parameters, rows)
    check_range(requested.addresses)
    if requested.addresses.count != rows:
        given = f"{requested.addresses.count} addresses for {rows} images"
        raise ItemError("ADDRESSES_WRONG", f"{given}; send one for each image")
    if requested.addresses.labels:
        raise ItemError("LABEL_NOT_TAKEN", "transforms do not depend on labels; leave labels empty")
    capacity.reserve(rows, size_bytes)
    capacity.image_shape = shape
    images = np.frombuffer(data, np.uint8).reshape(rows, *shape)  # (n·H·W·C,) -> (n, H, W, C)
    return ManipulationRows(images=images, table=table, addresses=read_addresses(requested.addresses))


def _manipulation_shape(images: worker_pb2.Tensor, size_bytes: int, capacity: CallCapacity) -> tuple[int, ...]:
    """Check the images of an item and return (H, W, C)."""
    dims = tuple(images.dims)
    if images.dtype != model_pb2.DTYPE_UINT8:
        raise ItemError("DTYPE_WRONG", f"images.dtype is {images.dtype}; images to transform are UINT8")
    if len(dims) != 4 or not all(dims):
        raise ItemError("SHAPE_WRONG", f"images have dims {list(dims)}; send (n, H, W, C), each above 0")
    if capacity.image_shape not in (None, dims[1:]):
        other = f"images are {list(dims[1:])}, the call's first {list(capacity.image_shape or ())}"
        raise ItemError("SHAPE_NOT_SHARED", f"{other}; send them with others of their shape")
    check_data("images", size_bytes, math.prod(dims), "uint8")
    return dims[1:]


def _read_table(parameters: worker_pb2.Tensor, rows: int) -> Float32s:
    table = read_float32("parameters", parameters, (rows, len(COLUMNS)))
    outside = ~(np.abs(table) <= _MAX_PARAMETER)  # NaN included
    outside[:, _ZOOM] |= table[:, _ZOOM] < _MIN_ZOOM
    if outside.any():
        row, column = np.argwhere(outside)[0]
        found = f"{COLUMNS[column]} of row {row} is {table[row, column]:g}"
        allowed = f"{_MIN_ZOOM if column == _ZOOM else -_MAX_PARAMETER:g} to {_MAX_PARAMETER:g}"
        raise ItemError("PARAMETER_WRONG", f"{found}; send finite values, {allowed}")
    return table


def _keep_floats(floats: Float32s) -> NDArray[np.float32]:
    return floats
