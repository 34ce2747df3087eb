"""Samples larger than a chunk: joined again from the parts they travel in."""

from __future__ import annotations

from fount.errors import BadReply
from fount.sampling.decode import ROW_BYTES_LIMIT
from fount.v1 import sampling_pb2

__all__ = ["Parts", "brief"]


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
