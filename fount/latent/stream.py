"""Streams of given rows over all their attempts: requests, checks of what is received, and where to resume.

No I/O happens here. gRPC takes a request when the server has room for it, and only then its rows are copied.
When a stream breaks, the rows whose results are missing are sent again, with seed, digest and numerics pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np

from fount.errors import BadReply
from fount.latent.request import GivenRequest
from fount.latent.types import Probabilities, ScoreColumn, Scores, score_column
from fount.retry import RetryState
from fount.sampling.decode import Parts, brief, misplaced, model_id, read_rows, read_shape
from fount.sampling.rows import messages_of
from fount.sampling.stream import IndexedStream, check_pinned
from fount.sampling.types import Chunk, Provenance, SampleCollector, Samples, SampleShape
from fount.v1 import model_pb2, sampling_pb2

__all__ = ["GivenStream"]

_Kind = TypeVar("_Kind", bound=Samples)


class GivenStream(IndexedStream):
    """A call of `LatentService`, `ScoringService` or `TranslationService` over all its attempts, and its results."""

    item = "result"

    def __init__(self, given: GivenRequest, retry: RetryState) -> None:
        start, each = given.config.start_index, given.results_each
        super().__init__(retry, start * each, (start + given.units) * each)
        self._given = given
        self._collector = SampleCollector(given.units * each, field="rows", remedy="give fewer")
        self._header: sampling_pb2.SampleHeader | None = None
        self._described: tuple[SampleShape, Provenance] | None = None  # by the header
        self._columns: tuple[ScoreColumn, ...] = ()
        self._classes: tuple[str, ...] = ()
        self._has_header, self._parts = False, Parts()  # of this attempt
        self._due = self.next_index  # the result this attempt sends next, which an earlier one may have sent

    def begin(self) -> Iterator[Any]:
        """Return the requests of the next attempt: the config, and then the rows whose results are missing."""
        self._has_header, self._parts = False, Parts()
        given, config = self._given, deepcopy(self._given.config)
        done = self.next_index // given.results_each - config.start_index  # rows or pairs of which nothing is missing
        config.start_index += done
        self._due = config.start_index * given.results_each
        if self._header is not None:
            config.model.CopyFrom(self._header.model)
            config.numerics = self._header.numerics
            if "seed" in config.DESCRIPTOR.fields_by_name:
                config.seed = self._header.seed
        return _requests(given, config, done)

    def receive(self, response: Any) -> Chunk | None:
        """Keep the results in a message that were not received before, and return them; None for a header, or a part.

        Raises:
            BadReply: it contradicts the request or an earlier message.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and not self._has_header:
            self._accept_header(response.header)
            return None
        if kind != "chunk" or not self._has_header:
            raise misplaced(kind)
        chunk = self._accept_chunk(response.chunk)
        if chunk is not None:
            self._collector.add(chunk)
        return chunk

    def samples(self) -> Samples:
        """Return the results: (n, ...), or where a row or pair has several, (n, results_each, ...).

        Raises:
            SampleFailed: some results failed.
        """
        return self._collector.finish()

    def groups(self) -> Samples:
        """Return the results as (n, results_each, ...); raises as `samples`."""
        flat, each = self.samples(), self._given.results_each
        groups = (-1, each)  # (n * results_each,) -> (n, results_each)
        return Samples.of(
            flat.view(np.ndarray).reshape(*groups, *flat.shape[1:]),
            labels=None if flat.labels is None else flat.labels.reshape(groups),
            indices=None if flat.indices is None else flat.indices.reshape(groups),
            provenance=flat.provenance,
            value_range=flat.value_range,
        )

    def scores(self) -> Scores:
        """Return the results as scores; raises as `samples`."""
        scores = _as(Scores, self.samples())
        scores.columns = self._columns
        return scores

    def probabilities(self) -> Probabilities:
        """Return the results as class probabilities; raises as `samples`."""
        probabilities = _as(Probabilities, self.samples())
        probabilities.classes = self._classes
        return probabilities

    def _accept_header(self, message: Any) -> None:
        fields = message.DESCRIPTOR.fields_by_name
        header: sampling_pb2.SampleHeader = message.stream if "stream" in fields else message
        earlier = self._header or header
        check_pinned(self._given.config, earlier, header)
        columns = tuple(score_column(each) for each in message.columns) if "columns" in fields else ()
        classes = tuple(label.name for label in message.labels) if "labels" in fields else ()
        if self._header is None:
            shape = read_shape(header.sample_spec, self._encoding(header))
            if shape.dims != ((len(columns or classes),) if columns or classes else shape.dims):
                raise BadReply(f"The server sent {shape.dims} numbers a row for {len(columns or classes)} columns.")
            provenance = Provenance(model=model_id(header.model), seed=header.seed, numerics=header.numerics)
            self._described, self._columns, self._classes = (shape, provenance), columns, classes
        elif (earlier.sample_spec, self._columns, self._classes) != (header.sample_spec, columns, classes):
            raise BadReply("The server changed the shape or meaning of results in the middle of a stream.")
        self._header, self._has_header = header, True

    def _encoding(self, header: sampling_pb2.SampleHeader) -> model_pb2.Encoding.ValueType:
        """Return the encoding that is due: where none was requested, the model's own; other results are floats."""
        config = self._given.config
        if "encoding" not in config.DESCRIPTOR.fields_by_name:
            return model_pb2.ENCODING_FLOAT32
        if config.encoding:
            return config.encoding  # type: ignore[no-any-return]
        is_image = header.sample_spec.layout == model_pb2.SampleSpec.LAYOUT_HWC
        return model_pb2.ENCODING_UINT8 if is_image else model_pb2.ENCODING_FLOAT32

    def _accept_chunk(self, part: sampling_pb2.SampleChunk) -> Chunk | None:
        chunk = self._parts.join(part)
        if chunk is None or self._described is None:
            return None
        (shape, provenance), count = self._described, chunk.count
        if chunk.start_index != self._due or not 0 < count <= self._end - self._due:
            raise BadReply(f"Results {self._due} to {self._end - 1} are due, but {brief(chunk)} arrived.")
        self._check_labels(chunk)
        samples, _, errors = read_rows(chunk, shape)
        self._due += count
        known = self.next_index - chunk.start_index  # results received before the stream broke
        if samples is None or known >= count:
            return None
        start = self.next_index
        self._advance(chunk.start_index + count)
        return Chunk(
            provenance=provenance,
            shape_of_one=shape,
            start_index=start,
            count=count - known,
            samples=samples[known:],
            labels=np.array(chunk.labels[known:], np.int64) if chunk.labels else None,
            errors=tuple(error for error in errors if error.index >= start),
        )

    def _check_labels(self, chunk: sampling_pb2.SampleChunk) -> None:
        given = self._given
        if len(chunk.labels) not in (0, chunk.count):
            raise BadReply(f"The chunk with {brief(chunk)} has {len(chunk.labels)} labels.")
        if given.labels is None:
            return
        numbers = np.arange(chunk.count) + (chunk.start_index - self._start)
        if given.labels[numbers // given.results_each].tolist() != list(chunk.labels):
            raise BadReply(f"The chunk with {brief(chunk)} has other labels than requested.")


def _as(kind: type[_Kind], flat: Samples) -> _Kind:
    return kind.of(
        flat.view(np.ndarray),
        labels=flat.labels,
        indices=flat.indices,
        provenance=flat.provenance,
        value_range=flat.value_range,
    )


def _requests(given: GivenRequest, config: Any, done: int) -> Iterator[Any]:
    yield given.message(config=config)
    labels = None if given.labels is None else given.labels[done:].repeat(given.rows_each)
    for message in messages_of(given.rows[done * given.rows_each :], labels):
        yield given.message(rows=message)
