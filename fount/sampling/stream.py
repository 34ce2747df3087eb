"""How far a stream of samples has come: what was received, whether it can be true, and what to ask for after a break.

No I/O happens here. `StreamProgress` is told of messages and says which chunk they make; when the stream breaks, it
gives the request for the rest: seed, digest and numerics pinned to the header's, starting at the first index missing.
That is safe for every condition, because a sample depends on its own address alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fount.errors import BadReply
from fount.sampling.decode import Parts, brief, read_rows, read_shape
from fount.sampling.types import Chunk, ModelId, Provenance, SampleShape
from fount.v1 import sampling_pb2

__all__ = ["StreamProgress"]


@dataclass(frozen=True, kw_only=True)
class _Heading:
    """What an attempt's header said."""

    provenance: Provenance
    shape: SampleShape


class StreamProgress:
    """One request's stream, over as many attempts as it takes."""

    def __init__(self, request: sampling_pb2.SampleRequest) -> None:
        self._request = request
        self._next = request.start_index
        self._end = request.start_index + request.count
        self._header: sampling_pb2.SampleHeader | None = None
        self._heading: _Heading | None = None  # of this attempt
        self._parts = Parts()

    @property
    def next_index(self) -> int:
        """Index of the first sample not yet received."""
        return self._next

    def begin(self) -> sampling_pb2.SampleRequest:
        """Begin an attempt: the request itself first, then the request for what is missing."""
        self._heading, self._parts = None, Parts()
        request = sampling_pb2.SampleRequest()
        request.CopyFrom(self._request)
        if self._header is None:
            return request
        done = self._next - self._request.start_index
        request.start_index, request.count = self._next, self._end - self._next
        request.seed, request.numerics = self._header.seed, self._header.numerics
        request.model.CopyFrom(self._header.model)
        if request.condition.WhichOneof("kind") == "labels":
            del request.condition.labels.ids[:done]
        return request

    def receive(self, response: sampling_pb2.SampleResponse) -> Chunk | None:
        """Take one message in.

        Returns:
            The chunk it completes; None for a header, or a part of a sample.

        Raises:
            BadReply: it contradicts the request, or what came before.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and self._heading is None:
            self._heading = self._accept_header(response.header)
            return None
        if kind != "chunk" or self._heading is None:
            raise BadReply(f"The stream has {'no kind of message' if kind is None else f'a {kind}'} out of its place")
        chunk = self._parts.join(response.chunk)
        return None if chunk is None else self._accept_chunk(chunk, self._heading)

    @property
    def is_complete(self) -> bool:
        """Whether every sample asked for came."""
        return self._next == self._end

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: it ended before the last sample.
        """
        if not self.is_complete:
            raise BadReply(f"The stream ended before sample {self._next}; {self._end - self._next} are missing")

    def _accept_header(self, header: sampling_pb2.SampleHeader) -> _Heading:
        pinned = self._header or _as_pinned(self._request, header)
        for field, wanted, got in (
            ("digest", pinned.model.digest, header.model.digest),
            ("seed", pinned.seed, header.seed),
            ("numerics", pinned.numerics, header.numerics),
        ):
            if wanted != got:
                raise BadReply(f"The server gave {field} {got!r} where {wanted!r} was pinned; samples would not match")
        if pinned.sample_spec != header.sample_spec:
            raise BadReply("The server changed how samples are to be read in the middle of a stream")
        self._header = header
        model = ModelId(name=header.model.name, version=header.model.version, digest=header.model.digest)
        provenance = Provenance(model=model, seed=header.seed, numerics=header.numerics)
        return _Heading(provenance=provenance, shape=read_shape(header.sample_spec, self._request.encoding))

    def _accept_chunk(self, chunk: sampling_pb2.SampleChunk, heading: _Heading) -> Chunk:
        if chunk.start_index != self._next or not 0 < chunk.count <= self._end - self._next:
            raise BadReply(f"Samples {self._next} to {self._end - 1} are due, but {brief(chunk)} came")
        self._check_labels(chunk)
        rows = read_rows(chunk, heading.shape)
        self._next += chunk.count
        return Chunk(
            provenance=heading.provenance,
            shape_of_one=heading.shape,
            start_index=chunk.start_index,
            count=chunk.count,
            samples=rows.samples,
            files=rows.files,
            labels=np.array(chunk.labels, np.int64) if chunk.labels else None,
            errors=rows.errors,
        )

    def _check_labels(self, chunk: sampling_pb2.SampleChunk) -> None:
        condition = self._request.condition
        kind = condition.WhichOneof("kind")
        if len(chunk.labels) not in ((0, chunk.count) if kind is None else (chunk.count,)):
            raise BadReply(f"{brief(chunk)} came with {len(chunk.labels)} labels")
        wanted: list[int] | None = None
        if kind == "labels":
            done = chunk.start_index - self._request.start_index
            wanted = condition.labels.ids[done : done + chunk.count]
        elif kind == "label" and condition.label.WhichOneof("kind") == "id":
            wanted = [condition.label.id] * chunk.count
        if wanted is not None and wanted != list(chunk.labels):
            raise BadReply(f"{brief(chunk)} came with other labels than those asked for")


def _as_pinned(request: sampling_pb2.SampleRequest, header: sampling_pb2.SampleHeader) -> sampling_pb2.SampleHeader:
    """The header that a request pins, what it leaves open being the server's choice."""
    pinned = sampling_pb2.SampleHeader()
    pinned.CopyFrom(header)
    pinned.model.digest = request.model.digest or header.model.digest
    pinned.seed = request.seed if request.HasField("seed") else header.seed
    pinned.numerics = request.numerics or header.numerics
    return pinned
