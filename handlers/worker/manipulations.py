"""Manipulations: images with what is to be done to each, read from an item, or made up to try a transformer with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.transform_columns import COLUMNS, IDENTITY
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.execution.rows import ManipulationRows
from handlers.worker.budget import Budget, ItemError, check_size
from handlers.worker.ranges import check_range, read_addresses

__all__ = ["made_up_manipulations", "read_manipulation"]

_MOST = 1000.0  # beyond any parameter that a policy can draw; keeps every pixel finite
_ZOOM = COLUMNS.index("zoom_factor")
_LEAST_ZOOM = 0.001

_TRIED = {
    "flip_horizontal": (0.0, 1.0), "flip_vertical": (0.0, 1.0), "rotate_degrees": (-180.0, 180.0),
    "shear_degrees": (-30.0, 30.0), "zoom_factor": (0.5, 2.0), "shift_x": (-0.2, 0.2), "shift_y": (-0.2, 0.2),
    "brightness": (-0.2, 0.2), "contrast_factor": (0.5, 2.0), "noise_std": (0.0, 0.1), "erase_x": (0.0, 0.5),
    "erase_y": (0.0, 0.5), "erase_width": (0.0, 0.4), "erase_height": (0.0, 0.4),
}  # fmt: skip


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
    shape = _image_shape(wanted.images, len(data), budget)
    rows, size_bytes = wanted.images.dims[0], 4 * math.prod(wanted.images.dims)
    check_size(rows, size_bytes)
    table = _read_table(wanted.parameters, rows)
    _check_addresses(wanted.addresses, rows)
    budget.take(rows, size_bytes)
    budget.image_shape = shape
    images = np.frombuffer(data, np.uint8).reshape(rows, *shape)  # (n·H·W·C,) -> (n, H, W, C)
    return ManipulationRows(images=images, table=table, addresses=read_addresses(wanted.addresses))


def _image_shape(images: worker_pb2.Tensor, size_bytes: int, budget: Budget) -> tuple[int, ...]:
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


def made_up_manipulations(addresses: Addresses, shape: tuple[int, int, int]) -> ManipulationRows:
    """Make images of noise with every transform in some of them; each eighth row is to stay as it is.

    Args:
        addresses: one a row.
        shape: (H, W, C).
    """
    levels = (addresses.uniforms(Stream.LATENT, math.prod(shape)) * 256).astype(np.uint8)
    ends = np.array([_TRIED[name] for name in COLUMNS])  # (columns, 2)
    uniforms = addresses.uniforms(Stream.TRANSFORM, 2 * len(COLUMNS))  # (n, 2·columns)
    drawn = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * uniforms[:, : len(COLUMNS)]
    left = uniforms[:, len(COLUMNS) :] < 0.5
    left |= (addresses.indices % np.uint64(8) == 0)[:, None]
    table = np.where(left, IDENTITY, drawn.astype(np.float32))
    # (n, H·W·C) -> (n, H, W, C)
    return ManipulationRows(images=levels.reshape(len(addresses), *shape), table=table, addresses=addresses)
