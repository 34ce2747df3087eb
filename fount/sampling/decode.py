"""From the bytes of a `SampleChunk` to rows: arrays for raw encodings, files for PNG. A chunk that lies is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from fount.errors import BadReply
from fount.sampling.types import RowError, SampleShape
from fount.v1 import model_pb2, sampling_pb2

__all__ = ["ROW_BYTES_LIMIT", "Rows", "read_rows", "read_shape"]

ROW_BYTES_LIMIT = 2**30
"""The most bytes one sample may have."""

_ENCODINGS = {
    model_pb2.ENCODING_UINT8: ("uint8", model_pb2.DTYPE_UINT8),
    model_pb2.ENCODING_FLOAT32: ("float32", model_pb2.DTYPE_FLOAT32),
    model_pb2.ENCODING_PNG: ("png", model_pb2.DTYPE_UINT8),
}

_STATUS_NAMES = {int(code.value[0]): code.name for code in grpc.StatusCode}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A chunk's samples.

    Attributes:
        samples: (N, H, W, C) read-only, or None for files.
        files: one a sample, or empty for arrays.
        errors: the samples that failed.
    """

    samples: NDArray[Any] | None
    files: tuple[bytes, ...]
    errors: tuple[RowError, ...]


def read_rows(chunk: sampling_pb2.SampleChunk, shape: SampleShape) -> Rows:
    """Read a chunk of whole samples.

    Raises:
        BadReply: the lengths, the errors or the number of bytes disagree with the count.
    """
    errors = tuple(_row_error(chunk, error) for error in chunk.errors)
    failed = {error.index - chunk.start_index for error in errors}
    if shape.encoding == "png":
        return Rows(samples=None, files=_split(chunk, failed), errors=errors)
    dtype = np.dtype(shape.dtype).newbyteorder("<")
    data = _dense(chunk, failed, math.prod(shape.dims) * dtype.itemsize)
    samples = np.frombuffer(data, dtype).reshape(chunk.count, *shape.dims)  # (N * H * W * C,) -> (N, H, W, C)
    return Rows(samples=samples, files=(), errors=errors)


def read_shape(spec: model_pb2.SampleSpec, encoding: model_pb2.Encoding.ValueType) -> SampleShape:
    """Read how samples are to be read.

    Raises:
        BadReply: they come in a form that this client does not read.
    """
    name, dtype = _ENCODINGS[encoding]
    if spec.encoding != encoding or spec.layout != model_pb2.SampleSpec.LAYOUT_HWC or len(spec.dims) != 3:
        raise BadReply(f"The samples come in a form that this client does not read: {spec}")
    is_raw = name != "png"
    if is_raw and (spec.dtype != dtype or min(spec.dims) < 1 or 4 * math.prod(spec.dims) > ROW_BYTES_LIMIT):
        raise BadReply(f"The samples come in a form that this client does not read: {spec}")
    return SampleShape(
        dims=tuple(spec.dims),
        dtype="float32" if spec.dtype == model_pb2.DTYPE_FLOAT32 else "uint8",
        value_range=(spec.value_range.min, spec.value_range.max),
        encoding=name,
    )


def _dense(chunk: sampling_pb2.SampleChunk, failed: set[int], row_bytes: int) -> bytes:
    """The bytes of fixed-size rows, those of failed samples filled in with zeros where they are absent."""
    rows = _split(chunk, failed) if chunk.lengths else ()
    wrong = [len(row) for i, row in enumerate(rows) if len(row) != row_bytes and not (i in failed and not row)]
    if wrong:
        raise BadReply(f"{_brief(chunk)} hold a sample of {wrong[0]} bytes; each has {row_bytes}")
    data = b"".join(row or bytes(row_bytes) for row in rows) if failed and rows else chunk.data
    if len(data) != chunk.count * row_bytes:
        raise BadReply(f"{_brief(chunk)} hold {len(data)} bytes; {chunk.count * row_bytes} are due")
    return data


def _split(chunk: sampling_pb2.SampleChunk, failed: set[int]) -> tuple[bytes, ...]:
    if len(chunk.lengths) != chunk.count or sum(chunk.lengths) != len(chunk.data):
        raise BadReply(f"{_brief(chunk)} hold {len(chunk.data)} bytes, and lengths that do not sum to them")
    ends = np.cumsum(chunk.lengths).tolist()
    rows = tuple(chunk.data[end - length : end] for end, length in zip(ends, chunk.lengths, strict=True))
    if any(not row for i, row in enumerate(rows) if i not in failed):
        raise BadReply(f"{_brief(chunk)} hold an empty sample without an error")
    return rows


def _row_error(chunk: sampling_pb2.SampleChunk, error: sampling_pb2.SampleError) -> RowError:
    if not 0 <= error.index - chunk.start_index < chunk.count or not error.status.code:
        raise BadReply(f"{_brief(chunk)} name an error of sample {error.index}, or one that is OK")
    code = _STATUS_NAMES.get(error.status.code, str(error.status.code))
    return RowError(index=error.index, code=code, message=error.status.message)


def _brief(chunk: sampling_pb2.SampleChunk) -> str:
    return f"Samples {chunk.start_index} to {chunk.start_index + chunk.count - 1}"
