"""Read tensors and addresses of worker messages, within the bounds of one call.

Every function raises ItemError: the item is invalid, or exceeds a bound, and nothing of its size was allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fount.address import MAX_INDEX, Addresses
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.execution.errors import ItemError
from handlers.execution.pixels import Float32s

__all__ = [
    "DTYPES", "MAX_CALL_BYTES", "MAX_CALL_ROWS", "CallCapacity", "check_data", "check_range", "check_size",
    "read_addresses", "read_float32",
]  # fmt: skip

DTYPES: Mapping[int, np.dtype[Any]] = {
    model_pb2.DTYPE_UINT8: np.dtype(np.uint8),
    model_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
}

MAX_CALL_ROWS = 65_536
"""The maximum number of rows of one call, all items together."""

MAX_CALL_BYTES = 256 * 2**20
"""The maximum size of values, of states, or of images as floats, in one call, all items together."""


@dataclass(kw_only=True)
class CallCapacity:
    """The remaining capacity of one call; items beyond it are refused, those before them are kept.

    Attributes:
        rows: remaining.
        size_bytes: remaining.
        image_shape: (H, W, C) of all images that the call transforms; None before the first.
        given: whether all given rows have labels, and whether they have masks; None before the first.
    """

    rows: int = MAX_CALL_ROWS
    size_bytes: int = MAX_CALL_BYTES
    image_shape: tuple[int, ...] | None = None
    given: tuple[bool, bool] | None = None

    def reserve(self, rows: int, size_bytes: int) -> None:
        """Reserve capacity for an item; called after every other check, so that a refused item takes nothing.

        Raises:
            ItemError: the item exceeds the remaining capacity.
        """
        if rows > self.rows or size_bytes > self.size_bytes:
            message = f"the call is full ({MAX_CALL_ROWS} rows, {MAX_CALL_BYTES} bytes); send the item in another"
            raise ItemError("CALL_TOO_LARGE", message)
        self.rows -= rows
        self.size_bytes -= size_bytes


def read_float32(field: str, tensor: worker_pb2.Tensor, shape: tuple[int, ...]) -> Float32s:
    """Read a FLOAT32 tensor of exactly this shape, NaN included."""
    if tensor.dtype != model_pb2.DTYPE_FLOAT32:
        raise ItemError("DTYPE_WRONG", f"{field}.dtype is {tensor.dtype}; set FLOAT32")
    if tuple(tensor.dims) != shape:
        raise ItemError("SHAPE_WRONG", f"{field}.dims are {list(tensor.dims)}; this item takes {list(shape)}")
    check_data(field, len(tensor.data), 4 * math.prod(shape), "float32")
    return np.frombuffer(tensor.data, "<f4").reshape(shape)


def check_data(field: str, size_bytes: int, expected: int, dtype: str) -> None:
    """Check the size of a tensor's data."""
    if size_bytes != expected:
        sizes = f"{field}.data has {size_bytes} bytes, its dims and dtype mean {expected}"
        raise ItemError("DATA_WRONG", f"{sizes}; send row-major {dtype}")


def check_range(requested: worker_pb2.Range) -> None:
    """Check that a range names addresses, as many as its count, without allocating anything of its size."""
    if requested.count == 0:
        raise ItemError("COUNT_WRONG", "count is 0; request 1 or more")
    if requested.start_index + requested.count > MAX_INDEX + 1:
        raise ItemError("INDEX_WRONG", "start_index + count is beyond 2^64; request fewer, or start earlier")
    if not requested.indices:
        return
    if len(requested.indices) != requested.count:
        given = f"{len(requested.indices)} indices for {requested.count} rows"
        raise ItemError("INDICES_WRONG", f"{given}; send one for each row, or none and a start_index")
    if requested.start_index:
        given = f"start_index is {requested.start_index} in addition to indices"
        raise ItemError("INDICES_WRONG", f"{given}; set it to 0, or leave indices out")


def read_addresses(requested: worker_pb2.Range) -> Addresses:
    """Read the addresses of a checked range."""
    if not requested.indices:
        return Addresses.of_range(requested.seed, requested.start_index, requested.count)
    indices = np.array(requested.indices, np.uint64)
    return Addresses(seeds=np.full(requested.count, requested.seed, np.uint64), indices=indices)


def check_size(rows: int, size_bytes: int) -> None:
    """Refuse an item that no call can hold."""
    if rows > MAX_CALL_ROWS or size_bytes > MAX_CALL_BYTES:
        limits = f"an item has {MAX_CALL_ROWS} rows and {MAX_CALL_BYTES} bytes at most"
        raise ItemError("ITEM_TOO_LARGE", f"{limits}, this one {rows} rows and {size_bytes} bytes; split it")
