"""Decode the gateway's messages: the bytes of a `SampleChunk` to arrays, files or texts, and values all replies share.

A chunk whose lengths, errors or bytes contradict its count is refused with `BadReply`.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from numpy.typing import NDArray

from fount.errors import BadReply
from fount.sampling.types import TEXT_DIMS, ModelId, RowError, SampleShape
from fount.v1 import model_pb2, sampling_pb2

__all__ = [
    "ROW_BYTES_LIMIT", "Parts", "brief", "decode", "enum_name", "misplaced", "model_id", "pair", "read_rows",
    "read_shape", "read_text_shape", "read_texts", "utc",
]  # fmt: skip

_T = TypeVar("_T")

ROW_BYTES_LIMIT = 2**30
"""The most bytes one sample may have."""

_ENCODINGS = {
    model_pb2.ENCODING_UINT8: ("uint8", model_pb2.DTYPE_UINT8),
    model_pb2.ENCODING_FLOAT32: ("float32", model_pb2.DTYPE_FLOAT32),
    model_pb2.ENCODING_PNG: ("png", model_pb2.DTYPE_UINT8),
}
_LAYOUTS = (
    (model_pb2.SampleSpec.LAYOUT_HWC, 3),
    (model_pb2.SampleSpec.LAYOUT_C, 1),
    (model_pb2.SampleSpec.LAYOUT_C, 2),
)
_STATUS_NAMES = {int(code.value[0]): code.name for code in grpc.StatusCode}


def read_shape(spec: model_pb2.SampleSpec, encoding: model_pb2.Encoding.ValueType) -> SampleShape:
    """Decode shape, type and encoding of samples; a BadReply is raised for a form this client cannot decode."""
    return _read_shape(spec.SerializeToString(deterministic=True), encoding)


@lru_cache(maxsize=64)  # every reply of a model has the same
def _read_shape(content: bytes, encoding: model_pb2.Encoding.ValueType) -> SampleShape:
    spec = model_pb2.SampleSpec.FromString(content)
    name, dtype = _ENCODINGS[encoding]
    is_known = spec.encoding == encoding and (spec.layout, len(spec.dims)) in _LAYOUTS
    if is_known and name != "png":
        is_known = spec.dtype == dtype and min(spec.dims) >= 1 and 4 * math.prod(spec.dims) <= ROW_BYTES_LIMIT
    if not is_known:
        raise BadReply(f"The samples have a form that this client cannot decode: {spec}")
    return SampleShape(
        dims=tuple(spec.dims),
        dtype="float32" if spec.dtype == model_pb2.DTYPE_FLOAT32 else "uint8",
        value_range=pair(spec.value_range),
        encoding=name,
    )


def read_text_shape(spec: model_pb2.SampleSpec, encoding: model_pb2.Encoding.ValueType) -> SampleShape | None:
    """Decode the shape of texts; None for other samples. A BadReply is raised for texts this client cannot decode."""
    if spec.layout != model_pb2.SampleSpec.LAYOUT_T:
        return None
    due = (TEXT_DIMS, model_pb2.DTYPE_UINT8, model_pb2.ENCODING_UINT8)
    if (tuple(spec.dims), spec.dtype, spec.encoding) != due or encoding != spec.encoding:
        raise BadReply(f"The samples have a form that this client cannot decode: {spec}")
    return SampleShape(dims=TEXT_DIMS, dtype="uint8", value_range=pair(spec.value_range), encoding="uint8")


def read_rows(
    chunk: sampling_pb2.SampleChunk, shape: SampleShape
) -> tuple[NDArray[Any] | None, tuple[bytes, ...], tuple[RowError, ...]]:
    """Decode a chunk of whole samples; a BadReply is raised if lengths, errors or bytes contradict the count.

    Returns:
        (N, *dims) samples, read-only, or None for files; one file a sample, or none; the samples that failed.
    """
    errors, failed = _row_errors(chunk)
    if shape.encoding == "png":
        return None, _split(chunk, failed), errors
    data = _dense(chunk, failed, shape.row_bytes)
    flat = np.frombuffer(data, shape.wire_dtype)
    return flat.reshape(chunk.count, *shape.dims), (), errors


def read_texts(chunk: sampling_pb2.SampleChunk) -> tuple[tuple[str, ...], tuple[RowError, ...]]:
    """Decode a chunk of texts, one a sample, and the samples that failed; errors as of `read_rows`."""
    errors, failed = _row_errors(chunk)
    try:
        texts = tuple([row.decode() for row in _split(chunk, failed, may_be_empty=True)])
    except UnicodeDecodeError as error:
        raise BadReply(f"The chunk with {brief(chunk)} has a text that is not UTF-8: {error}.") from error
    return texts, errors


def _dense(chunk: sampling_pb2.SampleChunk, failed: set[int], row_bytes: int) -> bytes:
    """Return the bytes of fixed-size rows; absent rows of failed samples are filled with zeros."""
    data = chunk.data
    if chunk.lengths:
        rows = _split(chunk, failed)
        wrong = [len(row) for i, row in enumerate(rows) if len(row) != row_bytes and not (i in failed and not row)]
        if wrong:
            raise BadReply(f"The chunk with {brief(chunk)} has a sample of {wrong[0]} bytes; each has {row_bytes}.")
        if failed:
            data = b"".join(row or bytes(row_bytes) for row in rows)
    if len(data) != chunk.count * row_bytes:
        due = chunk.count * row_bytes
        raise BadReply(f"The chunk with {brief(chunk)} has {len(data)} bytes, but {due} are due.")
    return data


def _split(chunk: sampling_pb2.SampleChunk, failed: set[int], *, may_be_empty: bool = False) -> tuple[bytes, ...]:
    if len(chunk.lengths) != chunk.count or sum(chunk.lengths) != len(chunk.data):
        raise BadReply(f"The lengths of {brief(chunk)} do not add up to the chunk's {len(chunk.data)} bytes.")
    ends = np.cumsum(chunk.lengths).tolist()
    rows = tuple(chunk.data[end - length : end] for end, length in zip(ends, chunk.lengths, strict=True))
    if not may_be_empty and any(not row for i, row in enumerate(rows) if i not in failed):
        raise BadReply(f"The chunk with {brief(chunk)} has an empty sample without an error.")
    return rows


def _row_errors(chunk: sampling_pb2.SampleChunk) -> tuple[tuple[RowError, ...], set[int]]:
    """Decode the errors of a chunk; also return their rows."""
    errors = tuple([_row_error(chunk, error) for error in chunk.errors])
    return errors, {error.index - chunk.start_index for error in errors}


def _row_error(chunk: sampling_pb2.SampleChunk, error: sampling_pb2.SampleError) -> RowError:
    if not 0 <= error.index - chunk.start_index < chunk.count or not error.status.code:
        raise BadReply(f"The chunk with {brief(chunk)} has an error of sample {error.index}, or one with status OK.")
    code = _STATUS_NAMES.get(error.status.code, str(error.status.code))
    return RowError(index=error.index, code=code, message=error.status.message)


class Parts:
    """Joins the parts of a sample that is larger than a chunk."""

    def __init__(self) -> None:
        self._parts: list[sampling_pb2.SampleChunk] = []

    def join(self, chunk: sampling_pb2.SampleChunk) -> sampling_pb2.SampleChunk | None:
        """Add a chunk, and return the whole one; None while parts are missing. A part out of order is a BadReply."""
        if not chunk.part_total and not self._parts:
            return chunk
        first = self._parts[0] if self._parts else chunk
        received = sum(len(part.data) for part in self._parts)
        same = (chunk.count, chunk.start_index, chunk.part_total) == (1, first.start_index, first.part_total)
        if not same or chunk.part_offset != received or not 0 < len(chunk.data) <= chunk.part_total - received:
            raise BadReply(f"After {received} bytes of sample {first.start_index}, {brief(chunk)} arrived.")
        if chunk.part_total > ROW_BYTES_LIMIT:
            raise BadReply(f"The chunk with {brief(chunk)} would be larger than {ROW_BYTES_LIMIT} bytes.")
        self._parts.append(chunk)
        if received + len(chunk.data) < chunk.part_total:
            return None
        whole = sampling_pb2.SampleChunk(start_index=first.start_index, count=1, lengths=[first.part_total])
        whole.labels.extend(first.labels)
        whole.errors.extend(error for part in self._parts for error in part.errors)
        whole.data = b"".join(part.data for part in self._parts)
        self._parts = []
        return whole


def brief(chunk: sampling_pb2.SampleChunk) -> str:
    """Name the samples of a chunk in a message."""
    part = f" (part {chunk.part_offset} of {chunk.part_total} bytes)" if chunk.part_total else ""
    return f"samples {chunk.start_index} to {chunk.start_index + chunk.count - 1}{part}"


def misplaced(kind: str | None) -> BadReply:
    """Return the error of a message that may not follow the one before."""
    return BadReply(f"The server sent {'an empty message' if kind is None else f'a {kind}'} out of order.")


def pair(value_range: model_pb2.ValueRange) -> tuple[float, float]:
    """Decode a range that is always set; (0.0, 0.0) when a server leaves it out."""
    return value_range.min, value_range.max


def enum_name(enum: Any, prefix: str, number: int) -> str:
    """Return the name of an enum value, as "like-real"; its number when only a newer server knows it."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return str(number) if value is None else str(value.name).removeprefix(prefix).lower().replace("_", "-")


def model_id(ref: model_pb2.ModelRef) -> ModelId:
    """Decode a resolved model."""
    return ModelId(name=ref.name, version=ref.version, digest=ref.digest)


def decode(kind: type[_T], message: Message, /, **values: Any) -> _T:
    """Build a dataclass from a message and the attributes that are not its fields of the same name.

    Repeated fields become tuples, ranges pairs, models `ModelId`, and unset fields with presence None.
    """
    names = [field.name for field in dataclasses.fields(kind) if field.name not in values]  # type: ignore[arg-type]
    return kind(**values, **{name: _attribute(message, name) for name in names})


def _attribute(message: Any, name: str) -> Any:
    value = getattr(message, name)
    if isinstance(value, model_pb2.ModelRef):
        return model_id(value)
    if message.DESCRIPTOR.fields_by_name[name].has_presence and not message.HasField(name):
        return None
    if isinstance(value, model_pb2.ValueRange):
        return pair(value)
    return value if isinstance(value, str | bytes | int | float) else tuple(value)


def utc(message: Message, name: str) -> datetime | None:
    """Decode a time; None when it is unset."""
    stamp: timestamp_pb2.Timestamp = getattr(message, name)
    return stamp.ToDatetime(tzinfo=UTC) if message.HasField(name) else None
