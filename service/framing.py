"""Chunks as bytes on the wire, without copying their samples into a message first.

protobuf's Python runtime copies a `bytes` field when it is set and again when the message around it is serialized,
which costs more than everything else a chunk needs. A framed chunk is the same wire format, put together by one join:
the message without its data, then the data field by hand.

Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding/ (fields may come in any order).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fount.v1 import sampling_pb2

__all__ = ["frame_chunk", "serializer"]

_LENGTH_DELIMITED = 2


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_CHUNK = _tag(sampling_pb2.SampleResponse.DESCRIPTOR.fields_by_name["chunk"].number)
_DATA = _tag(sampling_pb2.SampleChunk.DESCRIPTOR.fields_by_name["data"].number)


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


def serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """A method's serializer that lets framed messages through as they are."""
    return lambda message: message if type(message) is bytes or serialize is None else serialize(message)
