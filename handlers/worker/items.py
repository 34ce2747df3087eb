"""Items: what a gateway asks for, checked against the card and turned into rows; and outcomes, turned into its answer.

A gateway has checked requests already, so whatever is refused here is a mistake of one item, and is answered for that
item alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.rpc import code_pb2, status_pb2
from numpy.typing import NDArray

from fount.address import MAX_INDEX, Addresses
from fount.transform_columns import COLUMNS
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.execution.batches import Outcome, RowFault, Work
from handlers.execution.network import Operation
from handlers.execution.pixels import Float32s, Uint8s, floats_to_uint8, uint8_to_floats
from handlers.execution.rows import ImageRows, Int64s, ManipulationRows, SampleRows
from handlers.execution.stepping import StepPlan
from handlers.family import Draw
from handlers.statuses import status_of

__all__ = [
    "MAX_CALL_BYTES",
    "MAX_CALL_ROWS",
    "Budget",
    "ItemError",
    "add_outcome",
    "check_range",
    "check_size",
    "read_addresses",
    "read_draw",
    "read_manipulation",
    "read_work",
]


_DTYPES: Mapping[int, np.dtype[Any]] = {
    model_pb2.DTYPE_UINT8: np.dtype(np.uint8),
    model_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
}


def read_work(
    item: worker_pb2.WorkerItem, operation: Operation, card: Card, budget: Budget, step_plan: StepPlan | None = None
) -> Work:
    """Turn an item into work.

    Args:
        item: what is asked for.
        operation: of the call.
        card: the model's.
        budget: what the call may still hold.
        step_plan: how the call cuts draws; None when they cannot be cut.

    Raises:
        ItemError: it cannot be done; nothing of it was kept, nor taken from the budget.
    """
    if item.HasField("carry") and step_plan is None:
        raise ItemError("CARRY_NOT_TAKEN", f"{operation} of this model cannot be cut; leave carry unset")
    if operation == "SAMPLE":
        return _read_samples(item, card, budget, step_plan)
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


def _read_samples(item: worker_pb2.WorkerItem, card: Card, budget: Budget, step_plan: StepPlan | None) -> Work:
    if item.WhichOneof("kind") != "range":
        raise ItemError("KIND_WRONG", "SAMPLE takes a range of addresses; set item.range")
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, *_DTYPES):
        raise ItemError("DTYPE_WRONG", f"dtype {item.dtype} is unknown; set UINT8 or FLOAT32")
    wanted = item.range
    check_range(wanted)
    as_uint8 = item.dtype == model_pb2.DTYPE_UINT8
    row_bytes = math.prod(_image_shape(card)) * (1 if as_uint8 else 4)
    # The larger of both at every step, so that a draw that was begun can be gone on with.
    size_bytes = wanted.count * max(row_bytes, step_plan.state_bytes if step_plan else 0)
    check_size(wanted.count, size_bytes)
    labels = _read_labels(wanted, len(card.classes))
    states = _read_states(item, step_plan) if step_plan else None
    budget.take(wanted.count, size_bytes)
    rows = SampleRows(addresses=read_addresses(wanted), labels=labels, states=states)
    if step_plan and step_plan.step_range.stop is not None:
        return Work(rows=rows, encode=_as_floats, next_step=step_plan.step_range.stop)
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


def _read_states(item: worker_pb2.WorkerItem, step_plan: StepPlan) -> Float32s | None:
    """Read where an earlier call left an item's draws, NaN and all; None when they begin."""
    at = item.carry.next_step
    if item.HasField("carry") and not 1 <= at < step_plan.steps:
        raise ItemError("STEP_WRONG", f"carry.next_step is {at}; it must be above 0 and below {step_plan.steps}")
    if at != step_plan.first:
        other = f"the item is at step {at}, the first of its call at {step_plan.first}"
        raise ItemError("STEP_NOT_SHARED", f"{other}; send it with others at its step")
    if not at:
        return None
    state, shape = item.carry.state, (item.range.count, *step_plan.state_shape)
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


# FOLDED FROM handlers.worker.items:
# Ranges: the addresses an item names, consecutive ones or each by its index.


def check_range(wanted: worker_pb2.Range) -> None:
    """Refuse a range that names no addresses, or not as many as it says; nothing of its size is made.

    Raises:
        ItemError: it does.
    """
    if wanted.count == 0:
        raise ItemError("COUNT_WRONG", "count is 0; ask for 1 or more")
    if wanted.start_index + wanted.count > MAX_INDEX + 1:
        raise ItemError("INDEX_WRONG", "start_index + count is beyond 2^64; ask for fewer, or begin earlier")
    if not wanted.indices:
        return
    if len(wanted.indices) != wanted.count:
        given = f"{len(wanted.indices)} indices for {wanted.count} rows"
        raise ItemError("INDICES_WRONG", f"{given}; give one a row, or none and a start_index")
    if wanted.start_index:
        given = f"start_index is {wanted.start_index} beside indices"
        raise ItemError("INDICES_WRONG", f"{given}; set it to 0, or leave indices out")


def read_addresses(wanted: worker_pb2.Range) -> Addresses:
    """Read the addresses of a range that was checked."""
    if not wanted.indices:
        return Addresses.of_range(wanted.seed, wanted.start_index, wanted.count)
    indices = np.array(wanted.indices, np.uint64)
    return Addresses(seeds=np.full(wanted.count, wanted.seed, np.uint64), indices=indices)


# FOLDED FROM handlers.worker.items:
# Manipulations: images with what is to be done to each, read from an item, or made up to try a transformer
# with.


_MOST = 1000.0  # beyond any parameter that a policy can draw; keeps every pixel finite
_ZOOM = COLUMNS.index("zoom_factor")
_LEAST_ZOOM = 0.001


def read_manipulation(item: worker_pb2.WorkerItem, budget: Budget) -> ManipulationRows:
    """Turn an item into rows.

    Args:
        item: what is asked for.
        budget: what the call may still hold; keeps the shape that all its images have.

    Raises:
        ItemError: it cannot be done; nothing of it was kept.
    """
    if item.WhichOneof("kind") != "manipulation":
        raise ItemError("KIND_WRONG", "TRANSFORM takes images with parameters; set item.manipulation")
    if item.dtype not in (model_pb2.DTYPE_UNSPECIFIED, model_pb2.DTYPE_UINT8):
        raise ItemError("DTYPE_WRONG", "TRANSFORM gives UINT8 only; leave dtype unset")
    wanted = item.manipulation
    data = wanted.images.data  # once: each time is a copy
    shape = _manipulation_shape(wanted.images, len(data), budget)
    rows, size_bytes = wanted.images.dims[0], 4 * math.prod(wanted.images.dims)
    check_size(rows, size_bytes)
    table = _read_table(wanted.parameters, rows)
    _check_addresses(wanted.addresses, rows)
    budget.take(rows, size_bytes)
    budget.image_shape = shape
    images = np.frombuffer(data, np.uint8).reshape(rows, *shape)  # (n·H·W·C,) -> (n, H, W, C)
    return ManipulationRows(images=images, table=table, addresses=read_addresses(wanted.addresses))


def _manipulation_shape(images: worker_pb2.Tensor, size_bytes: int, budget: Budget) -> tuple[int, ...]:
    """Check the images of an item; (H, W, C)."""
    dims = tuple(images.dims)
    if images.dtype != model_pb2.DTYPE_UINT8:
        raise ItemError("DTYPE_WRONG", f"images.dtype is {images.dtype}; images to transform are UINT8")
    if len(dims) != 4 or not all(dims):
        raise ItemError("SHAPE_WRONG", f"images have dims {list(dims)}; give (n, H, W, C), each above 0")
    if budget.image_shape not in (None, dims[1:]):
        other = f"images are {list(dims[1:])}, the call's first {list(budget.image_shape or ())}"
        raise ItemError("SHAPE_NOT_SHARED", f"{other}; send them with others of their shape")
    if size_bytes != math.prod(dims):
        counted = f"images have {size_bytes} bytes of data, their dims say {math.prod(dims)}"
        raise ItemError("DATA_WRONG", f"{counted}; send row-major uint8")
    return dims[1:]


def _read_table(parameters: worker_pb2.Tensor, rows: int) -> NDArray[np.float32]:
    shape = (rows, len(COLUMNS))
    if parameters.dtype != model_pb2.DTYPE_FLOAT32:
        raise ItemError("DTYPE_WRONG", f"parameters.dtype is {parameters.dtype}; parameters are FLOAT32")
    if tuple(parameters.dims) != shape:
        given = f"parameters have dims {list(parameters.dims)}"
        raise ItemError("SHAPE_WRONG", f"{given}; {rows} images take {list(shape)}: {', '.join(COLUMNS)}")
    if len(parameters.data) != 4 * math.prod(shape):
        counted = f"parameters have {len(parameters.data)} bytes of data, their dims say {4 * math.prod(shape)}"
        raise ItemError("DATA_WRONG", f"{counted}; send row-major float32")
    table = np.frombuffer(parameters.data, "<f4").reshape(shape)  # (n·columns,) -> (n, columns)
    beyond = ~(np.abs(table) <= _MOST)  # NaN included
    beyond[:, _ZOOM] |= table[:, _ZOOM] < _LEAST_ZOOM
    if beyond.any():
        row, column = np.argwhere(beyond)[0]
        found = f"{COLUMNS[column]} of row {row} is {table[row, column]:g}"
        right = f"{_LEAST_ZOOM if column == _ZOOM else -_MOST:g} to {_MOST:g}"
        raise ItemError("PARAMETER_WRONG", f"{found}; send finite values, {right}")
    return table


def _check_addresses(addresses: worker_pb2.Range, rows: int) -> None:
    check_range(addresses)
    if addresses.count != rows:
        raise ItemError("ADDRESSES_WRONG", f"{addresses.count} addresses for {rows} images; give one an image")
    if addresses.labels:
        raise ItemError("LABEL_NOT_TAKEN", "images are transformed whatever their label; leave labels empty")


# FOLDED FROM handlers.worker.items:
# What one call may hold, and what is said of an item that is refused. A call is bounded as a whole, so that a
# worker's memory is; an item beyond the bounds is refused alone, before anything of its size is made.


MAX_CALL_ROWS = 65_536
"""The most rows of one call, all items together."""

MAX_CALL_BYTES = 256 * 2**20
"""The most bytes of values, of states, or of images as floats, in one call, all items together."""


class ItemError(Exception):
    """An item cannot be done as it is. The message says what to change.

    Attributes:
        status: its answer.
    """

    def __init__(self, reason: str, message: str, code: int = code_pb2.INVALID_ARGUMENT) -> None:
        self.status = status_of(code, reason, message)
        super().__init__(message)


@dataclass(kw_only=True)
class Budget:
    """What one call may still hold; items that would break it are refused, those before them stand.

    Attributes:
        rows: how many rows more.
        size_bytes: how many bytes more.
        image_shape: (H, W, C) of the images that the call transforms; None before the first.
    """

    rows: int = MAX_CALL_ROWS
    size_bytes: int = MAX_CALL_BYTES
    image_shape: tuple[int, ...] | None = None

    def take(self, rows: int, size_bytes: int) -> None:
        """Reserve room for an item; last of all, so that one that is refused takes nothing from those after it.

        Raises:
            ItemError: the item is too large for what is left of this call.
        """
        if rows > self.rows or size_bytes > self.size_bytes:
            message = f"the call is full ({MAX_CALL_ROWS} rows, {MAX_CALL_BYTES} bytes); send the item in another"
            raise ItemError("CALL_TOO_LARGE", message, code_pb2.RESOURCE_EXHAUSTED)
        self.rows -= rows
        self.size_bytes -= size_bytes


def check_size(rows: int, size_bytes: int) -> None:
    """Refuse an item that no call holds, before anything of its size is made.

    Raises:
        ItemError: it is too large.
    """
    if rows > MAX_CALL_ROWS or size_bytes > MAX_CALL_BYTES:
        limits = f"an item has {MAX_CALL_ROWS} rows and {MAX_CALL_BYTES} bytes at most"
        raise ItemError("ITEM_TOO_LARGE", f"{limits}, this one {rows} rows and {size_bytes} bytes; cut it")


# FOLDED FROM handlers.worker.items:
# Parameters: how a call wants its samples drawn, with the card's defaults for what it leaves unset.


_FLOATS = ("truncation", "temperature", "top_p", "guidance_scale")
_WHOLE = ("top_k", "steps")


def read_draw(parameters: sampling_pb2.Parameters, card: Card) -> Draw:
    """Read the parameters of a call.

    Raises:
        ItemError: one is not in the card, or outside its range.
    """
    values = {name: _read(parameters, name, card) for name in (*_FLOATS, *_WHOLE)}
    whole = {name: None if (value := values[name]) is None else int(value) for name in _WHOLE}
    return Draw(
        truncation=values["truncation"],
        temperature=values["temperature"],
        top_p=values["top_p"],
        guidance_scale=values["guidance_scale"],
        top_k=whole["top_k"],
        steps=whole["steps"],
    )


def _read(parameters: sampling_pb2.Parameters, name: str, card: Card) -> float | None:
    known = {str(key): parameter for key, parameter in card.parameters.items()}.get(name)
    if not parameters.HasField(name):  # type: ignore[arg-type]
        return known.default if known else None
    value = float(getattr(parameters, name))
    if known is None:
        taken = ", ".join(card.parameters) or "none"
        raise ItemError("PARAMETER_UNKNOWN", f"the model does not take {name}; it takes {taken}")
    if not math.isfinite(value) or not known.min <= value <= known.max:
        raise ItemError("PARAMETER_OUT_OF_RANGE", f"{name} is {value:g}; it must be {known.min:g} to {known.max:g}")
    return value
