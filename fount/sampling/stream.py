"""Streams over all their attempts: requests, checks of what is received, and where to resume a stream that broke.

No I/O happens here. A request enters, and then the messages of the gateway; checked chunks leave. When a stream breaks,
the rest is requested from the first missing index, with seed, digest and numerics pinned to those of the header. This
is safe for every condition, because a sample depends on its own address alone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np

from fount.errors import BadReply, FountError
from fount.retry import RetryState
from fount.sampling.decode import Parts, brief, misplaced, model_id, read_rows, read_shape, read_text_shape, read_texts
from fount.sampling.types import Chunk, Provenance, SampleShape
from fount.v1 import sampling_pb2

__all__ = ["IndexedStream", "SampleStream", "check_pinned"]

_MAX_UNARY_COUNT = 64  # samples that one message is likely to hold


class IndexedStream:
    """A streaming call whose items have consecutive indices; after a break, the first one missing is requested next.

    Attributes:
        item: what the stream consists of, in messages.
        retry: the time and the attempts left.
        next_index: index of the first item not yet received.
    """

    item: ClassVar[str]

    def __init__(self, retry: RetryState, start: int, end: int) -> None:
        self.retry, self.next_index = retry, start
        self._start, self._end = start, end

    @property
    def is_complete(self) -> bool:
        """Whether every item was received."""
        return self.next_index == self._end

    def finish(self) -> None:
        """Raise a BadReply if the stream ended before its last item."""
        if missing := self._end - self.next_index:
            raise BadReply(f"The stream ended before {self.item} {self.next_index}; {missing} are missing.")

    def recover(self, error: FountError) -> float | None:
        """Return the seconds to wait before the next attempt, None when everything was received; or raise the error."""
        if self.is_complete:
            return None
        received, count = self.next_index - self._start, self._end - self._start
        return self.retry.resume_delay_s(error, received=received, count=count, next_index=self.next_index)

    def _advance(self, end: int) -> None:
        self.next_index = end
        self.retry.record_progress()


class SampleStream(IndexedStream):
    """A `Sample` call over all its attempts."""

    item = "sample"

    def __init__(
        self,
        request: sampling_pb2.SampleRequest,
        retry: RetryState,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Start at the request's first sample; `on_progress` is called with the steps done, and the steps of all."""
        super().__init__(retry, request.start_index, request.start_index + request.count)
        self._request, self._on_progress = request, on_progress
        self._header: sampling_pb2.SampleHeader | None = None
        self._described: tuple[SampleShape, Provenance] | None = None  # by the header
        self._has_header, self._parts = False, Parts()  # of this attempt
        self._begun = self.next_index  # where it started
        self._most_steps = 0  # reported so far

    @property
    def count(self) -> int:
        """How many samples are requested."""
        return self._request.count

    @property
    def fits_unary(self) -> bool:
        """Whether the reply of one SampleOnce call is likely to hold all samples."""
        return self.count <= _MAX_UNARY_COUNT and self._on_progress is None

    def begin(self) -> sampling_pb2.SampleRequest:
        """Return the request of the next attempt: all samples at first, and those missing after a break."""
        self._has_header, self._parts, self._begun = False, Parts(), self.next_index
        request = deepcopy(self._request)
        if self._header is None:
            return request
        done = self.next_index - self._start
        request.start_index, request.count = self.next_index, self._end - self.next_index
        request.seed, request.numerics = self._header.seed, self._header.numerics
        request.model.CopyFrom(self._header.model)
        if request.condition.WhichOneof("kind") == "labels":
            del request.condition.labels.ids[:done]
        for rows in (request.condition.latent, request.condition.image, request.condition.mask):
            if rows.count > 1:
                row_bytes = len(rows.data) // rows.count
                rows.data, rows.count = rows.data[done * row_bytes :], rows.count - done
        return request

    def begin_once(self) -> sampling_pb2.SampleOnceRequest:
        """Return the request of a SampleOnce call, which is the first attempt."""
        return sampling_pb2.SampleOnceRequest(request=self._request)

    def receive(self, response: sampling_pb2.SampleResponse) -> Chunk | None:
        """Return the chunk that a message completes; None for a header, progress, or a part of a sample.

        Raises:
            BadReply: it contradicts the request or an earlier message.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and not self._has_header:
            self._accept_header(response.header)
            return None
        if kind == "progress" and self._has_header and self._on_progress is not None:
            self._report(response.progress, self._on_progress)
            return None
        if kind != "chunk" or not self._has_header:
            raise misplaced(kind)
        return self._accept_chunk(response.chunk)

    def _report(self, progress: sampling_pb2.SampleProgress, on_progress: Callable[[int, int], None]) -> None:
        """Report the progress of all attempts: a later one counts only the samples that were missing."""
        steps = progress.steps_total // max(1, self._end - self._begun)  # of a sample
        done = steps * (self._begun - self._start) + progress.steps_done
        if done > self._most_steps:  # an attempt that only repeats the steps of an earlier one makes no progress
            self._most_steps = done
            self.retry.record_progress()
        on_progress(done, steps * self._request.count)

    def receive_once(self, response: sampling_pb2.SampleOnceResponse) -> Chunk | None:
        """Check the reply of a SampleOnce call; a stream goes on with the samples it does not hold.

        Raises:
            BadReply: it contradicts the request.
        """
        self._accept_header(response.header)
        return self._accept_chunk(response.chunk) if response.chunk.count else None

    def _accept_header(self, header: sampling_pb2.SampleHeader) -> None:
        request, earlier = self._request, self._header or header
        check_pinned(request, earlier, header)
        if self._header is None:
            # Both refuse a form that cannot be decoded.
            shape = read_text_shape(header.sample_spec, request.encoding)
            shape = shape or read_shape(header.sample_spec, request.encoding)
            provenance = Provenance(model=model_id(header.model), seed=header.seed, numerics=header.numerics)
            self._described = shape, provenance
        elif earlier.sample_spec != header.sample_spec:
            raise BadReply("The server changed the shape or encoding of samples in the middle of a stream.")
        self._header, self._has_header = header, True

    def _accept_chunk(self, part: sampling_pb2.SampleChunk) -> Chunk | None:
        chunk = self._parts.join(part)
        if chunk is None or self._described is None:
            return None
        (shape, provenance), count = self._described, chunk.count
        if chunk.start_index != self.next_index or not 0 < count <= self._end - self.next_index:
            raise BadReply(f"Samples {self.next_index} to {self._end - 1} are due, but {brief(chunk)} arrived.")
        self._check_labels(chunk)
        samples, files, texts = None, tuple[bytes, ...](), tuple[str, ...]()
        if shape.is_text:
            texts, errors = read_texts(chunk)
        else:
            samples, files, errors = read_rows(chunk, shape)
        start_index = self.next_index
        self._advance(start_index + count)
        return Chunk(
            provenance=provenance,
            shape_of_one=shape,
            start_index=start_index,
            count=count,
            samples=samples,
            files=files,
            texts=texts,
            labels=np.array(chunk.labels, np.int64) if chunk.labels else None,
            errors=errors,
        )

    def _check_labels(self, chunk: sampling_pb2.SampleChunk) -> None:
        condition = self._request.condition
        kind = condition.WhichOneof("kind")
        if len(chunk.labels) not in ((0, chunk.count) if kind is None else (chunk.count,)):
            raise BadReply(f"The chunk with {brief(chunk)} has {len(chunk.labels)} labels.")
        due: list[int] | None = None
        if kind == "labels":
            first = chunk.start_index - self._start
            due = condition.labels.ids[first : first + chunk.count]
        elif kind == "label" and condition.label.WhichOneof("kind") == "id":
            due = [condition.label.id] * chunk.count
        if due is not None and due != list(chunk.labels):
            raise BadReply(f"The chunk with {brief(chunk)} has other labels than requested.")


def check_pinned(request: Any, earlier: sampling_pb2.SampleHeader, header: sampling_pb2.SampleHeader) -> None:
    """Raise a BadReply if a header has other than the request, or an earlier header of its stream, pinned.

    The server chooses what the request leaves open. A request without a field for the seed draws nothing.
    """
    pinned: list[tuple[str, Any, Any]] = [
        ("digest", request.model.digest or earlier.model.digest, header.model.digest),
        ("numerics", request.numerics or earlier.numerics, header.numerics),
    ]
    if "seed" in request.DESCRIPTOR.fields_by_name:
        pinned.append(("seed", request.seed if request.HasField("seed") else earlier.seed, header.seed))
    for field, due, found in pinned:
        if due != found:
            raise BadReply(f"The server sent {field} {found!r}, but {due!r} was pinned; samples would not match.")
