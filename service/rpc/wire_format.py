"""Frame chunks as bytes on the wire, without copying their samples into a message first.

protobuf's Python runtime copies a `bytes` field when it is set and again when the message around it is serialized,
which costs more than all other work on a chunk. A framed chunk is the same wire format, put together by one join: the
message without its data, then the data field.

Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding/ (fields may come in any order).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from fount.v1 import augmentation_pb2, sampling_pb2

__all__ = ["floats_field", "frame_chunk", "frame_rows", "serializer"]

_LENGTH_DELIMITED = 2


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _tag_of(message: type[Message], field: str) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


_CHUNK = _tag_of(sampling_pb2.SampleResponse, "chunk")
_DATA = _tag_of(sampling_pb2.SampleChunk, "data")
_ROWS = _tag_of(augmentation_pb2.PullDatasetResponse, "chunk")  # AugmentResponse gives its chunk the same number
_SAMPLES = _tag_of(augmentation_pb2.RowChunk, "samples")
_PROVENANCE = _tag_of(augmentation_pb2.RowChunk, "provenance")


def frame_chunk(chunk: sampling_pb2.SampleChunk, data: bytes | memoryview) -> bytes:
    """Serialize a SampleResponse of one chunk.

    Args:
        chunk: everything but its data.
        data: its data, as contiguous bytes.

    Returns:
        What `SampleResponse(chunk=chunk with data).SerializeToString()` would parse back from.
    """
    head = chunk.SerializeToString()
    size = len(data)
    field = _DATA + _varint(size)
    return b"".join((_CHUNK, _varint(len(head) + len(field) + size), head, field, data))


def frame_rows(
    rows: augmentation_pb2.RowChunk, provenance: bytes, samples: sampling_pb2.SampleChunk, data: bytes | memoryview
) -> bytes:
    """Serialize a PullDatasetResponse, or an AugmentResponse, of one chunk.

    Args:
        rows: everything but its samples and its provenance.
        provenance: a serialized RowProvenance; empty: unset.
        samples: everything but their data.
        data: their data, as contiguous bytes.
    """
    head, rest = samples.SerializeToString(), rows.SerializeToString()
    if provenance:
        rest += _PROVENANCE + _varint(len(provenance)) + provenance
    field, size = _DATA + _varint(len(data)), len(data)
    samples_bytes = len(head) + len(field) + size
    opening = _SAMPLES + _varint(samples_bytes)
    whole = len(rest) + len(opening) + samples_bytes
    return b"".join((_ROWS, _varint(whole), rest, opening, head, field, data))


def floats_field(message: type[Message], field: str, values: NDArray[np.float32]) -> bytes:
    """Serialize a packed field of floats; appended to a serialized message, it is read as one of its fields."""
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return _tag_of(message, field) + _varint(len(data)) + data


def serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """Wrap the serializer of a method so that framed messages pass through it unchanged."""
    return lambda message: message if type(message) is bytes or serialize is None else serialize(message)
