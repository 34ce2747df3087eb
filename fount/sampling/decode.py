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

__all__ = ["ROW_BYTES_LIMIT", "Parts", "Rows", "brief", "read_rows", "read_shape"]


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


# FOLDED FROM fount.sampling.decode:
# Samples larger than a chunk: joined again from the parts they travel in.


class Parts:
    """The parts of one large sample, as far as they came."""

    def __init__(self) -> None:
        self._parts: list[sampling_pb2.SampleChunk] = []

    def join(self, chunk: sampling_pb2.SampleChunk) -> sampling_pb2.SampleChunk | None:
        """Take a chunk in, and give it whole; None while parts are missing.

        Raises:
            BadReply: it does not follow what came before.
        """
        if not chunk.part_total and not self._parts:
            return chunk
        first = self._parts[0] if self._parts else chunk
        have = sum(len(part.data) for part in self._parts)
        same = (chunk.count, chunk.start_index, chunk.part_total) == (1, first.start_index, first.part_total)
        if not same or chunk.part_offset != have or not 0 < len(chunk.data) <= chunk.part_total - have:
            raise BadReply(f"Of sample {first.start_index} came {have} bytes, and then {brief(chunk)}")
        if chunk.part_total > ROW_BYTES_LIMIT:
            raise BadReply(f"{brief(chunk)} would be larger than {ROW_BYTES_LIMIT} bytes")
        self._parts.append(chunk)
        if have + len(chunk.data) < chunk.part_total:
            return None
        whole = sampling_pb2.SampleChunk(start_index=first.start_index, count=1, lengths=[first.part_total])
        whole.labels.extend(first.labels)
        whole.errors.extend(error for part in self._parts for error in part.errors)
        whole.data = b"".join(part.data for part in self._parts)
        self._parts = []
        return whole


def brief(chunk: sampling_pb2.SampleChunk) -> str:
    """Name a chunk in a message."""
    part = f" part {chunk.part_offset} of {chunk.part_total} bytes" if chunk.part_total else ""
    return f"samples {chunk.start_index} to {chunk.start_index + chunk.count - 1}{part}"
