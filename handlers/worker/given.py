"""Read given rows: values with labels and addresses, to encode, decode, score, translate, or to sample under."""

from __future__ import annotations

import math

import numpy as np

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.execution.errors import ItemError
from handlers.execution.network import Operation
from handlers.execution.pixels import Float32s, find_finite_rows, find_rows_within, uint8_to_floats
from handlers.execution.rows import GivenRows, Int64s
from handlers.worker.tensors import DTYPES, CallCapacity, check_data, check_range, check_size, read_addresses

__all__ = ["read_given"]

_MASKED: tuple[Operation, ...] = ("SAMPLE",)


def read_given(
    item: worker_pb2.WorkerItem, operation: Operation, card: Card, capacity: CallCapacity, *, state_bytes: int = 0
) -> GivenRows:
    """Read the given rows of an item.

    Args:
        item: of the request.
        operation: of the call.
        card: the model's.
        capacity: the remaining capacity of the call; reduced by the item.
        state_bytes: of a row's state when the call preempts its draw.

    Raises:
        ItemError: the item is invalid; it took nothing from the capacity.
    """
    if item.WhichOneof("kind") != "given":
        raise ItemError("KIND_WRONG", f"{operation} takes rows with addresses; set item.given")
    given = item.given
    if given.addresses.labels:
        raise ItemError("LABELS_WRONG", "labels of given rows are in given.labels; leave addresses.labels empty")
    check_range(given.addresses)
    count = given.addresses.count
    shape = _shape_of(operation, card)
    size_bytes = count * max(4 * math.prod(shape), 4 * math.prod(card.sample.shape), state_bytes)
    check_size(count, size_bytes)
    values = _read_values("given.values", given.values, count, shape)
    if values.dtype == np.uint8:
        if operation == "DECODE" or card.sample.modality == "vector":
            raise ItemError("DTYPE_WRONG", f"{operation} of this model reads FLOAT32; set given.values.dtype")
        values = uint8_to_floats(values, card.sample.value_range)
    _check_values(values, None if operation == "DECODE" else card.sample.value_range)
    mask = _read_mask(given, operation, count, shape)
    labels = _read_labels(given, operation, len(card.classes))
    parts = (labels is not None, mask is not None)
    _check_shared(parts, capacity)
    capacity.reserve(count, size_bytes)
    capacity.given = parts
    return GivenRows(values=values, labels=labels, addresses=read_addresses(given.addresses), mask=mask)


def _shape_of(operation: Operation, card: Card) -> tuple[int, ...]:
    """Return the shape of a row that an operation takes."""
    if operation == "DECODE":
        return (card.latent_dim or 0,)
    return card.input_shape if operation == "TRANSLATE" else card.sample.shape


def _read_values(field: str, tensor: worker_pb2.Tensor, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read (count, *shape) values; a single row is repeated for every address."""
    if tensor.dtype not in DTYPES:
        raise ItemError("DTYPE_WRONG", f"{field}.dtype {tensor.dtype} is unknown; set UINT8 or FLOAT32")
    dims = tuple(tensor.dims)
    if dims[1:] != shape or dims[:1] not in ((1,), (count,)):
        expected = ", ".join(map(str, shape))
        message = f"{field}.dims are {list(dims)}; this model reads ({count}, {expected}), or (1, {expected}) for all"
        raise ItemError("SHAPE_WRONG", message)
    dtype = DTYPES[tensor.dtype]
    data = tensor.data  # read once: each access copies
    check_data(field, len(data), math.prod(dims) * dtype.itemsize, dtype.name)
    rows = np.frombuffer(data, dtype).reshape(dims)
    return np.broadcast_to(rows, (count, *shape))


def _check_values(values: Float32s, value_range: tuple[float, float] | None) -> None:
    if not find_finite_rows(values).all():
        raise ItemError("VALUES_NOT_FINITE", "a value is NaN or infinite; send finite floats")
    if value_range is not None and not find_rows_within(values, value_range).all():
        low, high = value_range
        raise ItemError("VALUES_OUT_OF_RANGE", f"a value is outside [{low:g}, {high:g}], the model's value range")


def _read_mask(given: worker_pb2.Given, operation: Operation, count: int, shape: tuple[int, ...]) -> Float32s | None:
    if not given.HasField("mask"):
        return None
    if operation not in _MASKED:
        raise ItemError("MASK_NOT_TAKEN", f"{operation} takes no mask; leave given.mask unset")
    if given.mask.dtype != model_pb2.DTYPE_FLOAT32:
        raise ItemError("DTYPE_WRONG", "given.mask is FLOAT32; set its dtype")
    mask = _read_values("given.mask", given.mask, count, shape)
    if not np.isin(mask, (0, 1)).all():
        raise ItemError("MASK_WRONG", "given.mask has a value other than 0 and 1")
    return mask


def _check_shared(parts: tuple[bool, bool], capacity: CallCapacity) -> None:
    """Check that rows have labels and masks when the call's first have them, because all share batches."""
    for name, own, first in zip(("labels", "masks"), parts, capacity.given or parts, strict=True):
        if own != first:
            message = f"only some rows of the call have {name}; send those with and those without in calls of their own"
            raise ItemError(f"{name.upper()}_NOT_SHARED", message)


def _read_labels(given: worker_pb2.Given, operation: Operation, classes: int) -> Int64s | None:
    count, labels = given.addresses.count, given.labels
    if not classes:
        if labels:
            raise ItemError("LABEL_NOT_TAKEN", "the model is unconditional; leave given.labels empty")
        return None
    if not labels and operation == "SCORE":
        return None
    if len(labels) not in (1, count):
        raise ItemError("LABELS_WRONG", f"{len(labels)} labels for {count} rows; send one for all, or one for each row")
    read = np.fromiter(labels, np.int64, len(labels))
    if read.max() >= classes:
        raise ItemError("LABEL_UNKNOWN", f"label {read.max()} is unknown; labels are 0 to {classes - 1}")
    return np.broadcast_to(read, (count,)).copy()
