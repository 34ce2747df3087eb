"""An `Augment` call over all its attempts: the caller's rows are sent in messages, and variants of each are received.

No I/O happens here. Arrays of images enter; messages to send and checked `RowBatch` values leave. Sent rows are kept
until their variants are received, a few messages at most, so a client never reads far ahead of its source, and a stream
that broke is requested again from the first row not fully answered, with the seed and the model that the server chose.
Variants of a row depend on its own address alone, so they are the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from queue import SimpleQueue
from typing import Any, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.pull import PROVENANCE_LEVELS, Level
from fount.augmentation.rows import RowBatch, RowParts, read_row_batch
from fount.errors import BadReply, InvalidRequest
from fount.retry import RetryState
from fount.sampling.arguments import UINT64_MAX, Arguments, array_of
from fount.sampling.decode import misplaced, read_shape
from fount.sampling.request import model_ref
from fount.sampling.stream import IndexedStream
from fount.v1 import augmentation_pb2, model_pb2

__all__ = ["AioFeed", "AugmentQuery", "AugmentStream", "Feed", "Images", "Rows", "augment_config", "items_of"]

Images = NDArray[np.uint8]
"""(N, H, W, C) or (N, H, W) uint8."""

Rows = Images | Iterable[Images | tuple[Images, Any]]
"""Images, or an iterable of images or of pairs of images and labels."""

_Request = augmentation_pb2.AugmentRequest
_Message = tuple[augmentation_pb2.AugmentRows, tuple[int, ...]]  # rows, and the shape of their images

_FAILURE = "The rows cannot be augmented:"
_MESSAGE_BYTES = 2**20
_MAX_UNANSWERED = 4  # messages


class AugmentQuery(TypedDict, total=False):
    """How every row of a stream is transformed; None is the same as leaving an argument out."""

    # A list as under `policy` in a plan file, or its message; unset: the safe policy of `dataset` if it is given, else
    # a gentle one for any image.
    policy: Sequence[Mapping[str, Any]] | Mapping[str, Any] | augmentation_pb2.TransformPolicy | None
    # Number of variants of each row, 1 to 1000; unset: 1.
    variants: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one and reports it in provenance.
    seed: SupportsIndex | None
    # Index of the first row; row i of a seed always has the same variants. Unset: 0.
    start_index: SupportsIndex | None
    # The data set whose safe policy is used; unset: none.
    dataset: str | None
    # The transformer, named as in `Client.sample`; unset: the one that is served.
    model: str | None
    # How much provenance each variant has; unset: "ids".
    provenance: Level | None


def augment_config(query: AugmentQuery) -> augmentation_pb2.AugmentConfig:
    """Build the first message of a stream, without the shape of the images, from checked arguments."""
    arguments = Arguments("augment", query, AugmentQuery.__annotations__, _FAILURE)
    config = augmentation_pb2.AugmentConfig(
        variants=arguments.whole("variants", 1, 1000) or 1,
        start_index=arguments.whole("start_index", 0, UINT64_MAX) or 0,
        seed=arguments.whole("seed", 0, UINT64_MAX),
        dataset=arguments.text("dataset"),
        provenance=arguments.choice("provenance", PROVENANCE_LEVELS, "ids"),
    )
    arguments.finish()
    if (policy := query.get("policy")) is not None:
        from fount.augmentation.plan_file import policy_message  # loads pydantic, which nothing else here needs

        config.policy.CopyFrom(policy_message(policy))
    if model := query.get("model"):
        config.model.CopyFrom(model_ref(model))
    return config


class AugmentStream(IndexedStream):
    """An `Augment` call over all its attempts; its items are the variants of the rows sent so far."""

    item = "variant"

    def __init__(self, config: augmentation_pb2.AugmentConfig, retry: RetryState) -> None:
        super().__init__(retry, config.start_index * config.variants, config.start_index * config.variants)
        self._config = config
        self._header: augmentation_pb2.AugmentHeader | None = None
        self._has_header, self._parts = False, RowParts()  # of this attempt
        self._unanswered: deque[tuple[int, augmentation_pb2.AugmentRows]] = deque()  # first row, rows
        self._sent_rows = config.start_index  # one beyond the last row that was sent
        self._due = self.next_index  # index of the variant this attempt sends next, which an earlier one may have sent
        self._shape: tuple[int, ...] = ()

    @property
    def can_send(self) -> bool:
        """Whether another message may be sent before more variants are received."""
        return len(self._unanswered) < _MAX_UNANSWERED

    @property
    def is_complete(self) -> bool:
        """False: more rows may be sent until the stream has ended."""
        return False

    @property
    def has_rows(self) -> bool:
        """Whether any row was sent."""
        return self._sent_rows > self._config.start_index

    def begin(self) -> list[_Request]:
        """Return the first messages of the next attempt: the config, and the rows whose variants are missing."""
        self._has_header, self._parts = False, RowParts()
        first_row = self.next_index // self._config.variants
        config = deepcopy(self._config)
        config.start_index = first_row
        self._due = first_row * config.variants
        if self._header is not None:
            config.seed = self._header.seed
            config.policy.CopyFrom(self._header.policy)
            config.model.CopyFrom(self._header.model.model)
        rows = [_rows_from(max(first_row - row, 0), message) for row, message in self._unanswered]
        return [_Request(config=config), *(_Request(rows=message) for message in rows)]

    def send(self, rows: augmentation_pb2.AugmentRows, shape: tuple[int, ...]) -> _Request:
        """Add rows, and return the message that sends them; an InvalidRequest is raised for images of another shape."""
        if not self._shape:
            self._shape = shape
            self._config.height, self._config.width, self._config.channels = shape
        if shape != self._shape:
            text = f"row {self._sent_rows} is of shape {shape} after rows of {self._shape}; send one shape a call"
            raise InvalidRequest(_FAILURE, fields=[("images", text)])
        self._unanswered.append((self._sent_rows, rows))
        self._sent_rows += rows.count
        self._end = self._sent_rows * self._config.variants
        return _Request(rows=rows)

    def receive(self, response: augmentation_pb2.AugmentResponse) -> RowBatch | None:
        """Return the variants in a message that were not received before; None for a header, or a part of a row.

        Raises:
            BadReply: it contradicts the request or an earlier message.
            SampleFailed: rows failed.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and not self._has_header:
            self._accept_header(response.header)
            return None
        if kind != "chunk" or not self._has_header or self._header is None:
            raise misplaced(kind)
        chunk = self._parts.join(response.chunk)
        return None if chunk is None else self._accept_chunk(chunk, self._header)

    def _accept_header(self, header: augmentation_pb2.AugmentHeader) -> None:
        pinned = self._header or header
        for field, due, found in (
            ("seed", self._config.seed if self._config.HasField("seed") else pinned.seed, header.seed),
            ("variants", self._config.variants, header.variants),
            ("policy", pinned.policy, header.policy),
            ("model", pinned.model, header.model),
            ("shape", self._shape, read_shape(header.sample_spec, model_pb2.ENCODING_UINT8).dims),
        ):
            if due != found:
                raise BadReply(f"The server sent {field} {found!r}, but {due!r} is due; variants would not match.")
        self._header, self._has_header = header, True

    def _accept_chunk(
        self, chunk: augmentation_pb2.RowChunk, header: augmentation_pb2.AugmentHeader
    ) -> RowBatch | None:
        samples = chunk.samples
        if samples.start_index != self._due or not 0 < samples.count <= self._end - self._due:
            found = f"{samples.count} from variant {samples.start_index}"
            raise BadReply(f"Variants {self._due} to {self._end - 1} are due, but {found} arrived.")
        shape = read_shape(header.sample_spec, model_pb2.ENCODING_UINT8)
        batch = read_row_batch(chunk, shape, groups=0, columns=header.transform_columns)
        self._due += samples.count
        known = self.next_index - batch.start_index  # variants received before the stream broke
        if known >= len(batch):
            return None
        self._advance(batch.end_index)
        answered_rows = self.next_index // self._config.variants
        while self._unanswered and self._unanswered[0][0] + self._unanswered[0][1].count <= answered_rows:
            self._unanswered.popleft()
        return batch.take(slice(known, None)) if known > 0 else batch


def _rows_from(first: int, message: augmentation_pb2.AugmentRows) -> augmentation_pb2.AugmentRows:
    """Return a message without its first rows."""
    if not first:
        return message
    data = message.data[first * (len(message.data) // message.count) :]
    return augmentation_pb2.AugmentRows(count=message.count - first, labels=message.labels[first:], data=data)


class _Outbox:
    """The requests of a call, in a queue from which gRPC takes them; None ends them. A new attempt has a new queue."""

    def __init__(self, stream: AugmentStream, new_queue: Callable[[], Any]) -> None:
        self._stream, self._new_queue = stream, new_queue
        self._queue = new_queue()
        self._is_exhausted = self._is_open = False

    @property
    def _can_fill(self) -> bool:
        return self._stream.can_send and not self._is_exhausted

    def _send(self, message: _Message | None) -> None:
        """Send rows; None: there are no more."""
        self._is_exhausted = message is None
        request = None if message is None else self._stream.send(*message)
        if self._is_open:
            self._queue.put_nowait(request)

    def _open(self) -> Any:
        """Begin an attempt and return its queue."""
        self._queue, self._is_open = self._new_queue(), True
        for request in (*self._stream.begin(), *([None] if self._is_exhausted else [])):
            self._queue.put_nowait(request)
        return self._queue


class Feed(_Outbox):
    """Reads the caller's rows in the thread that reads the variants, only while the stream can send more.

    gRPC's own thread waits for the requests.
    """

    def __init__(self, stream: AugmentStream, items: Iterator[Any]) -> None:
        super().__init__(stream, SimpleQueue)
        self._messages = (message for item in items for message in split_rows(item))

    def fill(self) -> bool:
        """Send as much as may be sent; False when there is not a single row."""
        while self._can_fill:
            self._send(next(self._messages, None))
        return self._stream.has_rows

    def requests(self) -> Iterator[_Request]:
        """Begin an attempt and return its requests."""
        self.close()
        return iter(self._open().get, None)

    def close(self) -> None:
        """End the requests, for which gRPC's thread may be waiting."""
        self._queue.put_nowait(None)


class AioFeed(_Outbox):
    """The same within an event loop; the caller's rows may also come from an async iterator."""

    def __init__(self, stream: AugmentStream, items: Iterator[Any] | AsyncIterator[Any]) -> None:
        super().__init__(stream, asyncio.Queue)
        self._messages = (message async for item in _as_async(items) for message in split_rows(item))

    async def fill(self) -> bool:
        """Send as much as may be sent; False when there is not a single row."""
        while self._can_fill:
            self._send(await anext(self._messages, None))
        return self._stream.has_rows

    async def requests(self) -> AsyncIterator[_Request]:
        """Begin an attempt and yield its requests."""
        queue = self._open()
        while (request := await queue.get()) is not None:
            yield request


async def _as_async(items: Iterator[Any] | AsyncIterator[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def items_of(images: Any, labels: Any) -> Any:
    """Return images as an iterable of items for `split_rows`; one array, which alone may have labels, is one item."""
    if hasattr(images, "__array__"):
        return [(images, labels)]
    if labels is not None:
        text = "goes with one array of images; of several, give pairs of images and labels"
        raise InvalidRequest(_FAILURE, fields=[("labels", text)])
    return images


def split_rows(item: Any) -> Iterator[_Message]:
    """Split (N, H, W, C) or (N, H, W) uint8 images, alone or with N labels, into messages, each with its images' shape.

    Raises:
        InvalidRequest: the images have another type or shape, or labels are not one class id a row.
    """
    images, labels = item if isinstance(item, tuple) else (item, None)
    array = _as_array(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape[1:]:
        text = f"are {array.dtype} of shape {array.shape}; give uint8 of (rows, height, width, channels)"
        raise InvalidRequest(_FAILURE, fields=[("images", text)])
    array = array[..., None] if array.ndim == 3 else array  # (N, H, W) -> (N, H, W, 1)
    ids = _label_ids(labels, len(array))
    rows = max(1, _MESSAGE_BYTES // array[0].nbytes) if len(array) else 1
    for first in range(0, len(array), rows):
        part = array[first : first + rows]
        message = augmentation_pb2.AugmentRows(count=len(part), labels=ids[first : first + rows], data=part.tobytes())
        yield message, array.shape[1:]


def _as_array(images: Any) -> NDArray[Any]:
    """Make one array of images; an InvalidRequest names two of different shapes."""
    try:
        array = np.asarray(images)
    except ValueError:  # numpy makes no array of several shapes
        array = np.empty(0, object)
    if array.dtype != object:
        return array
    first, *others = [np.shape(each) for each in images] or [()]
    if other := next((row for row, shape in enumerate(others, 1) if shape != first), None):
        text = f"have several shapes: row 0 is {first}, row {other} is {others[other - 1]}; resize them to one shape"
    else:
        text = f"are Python objects, each of shape {first}; give np.stack(images) of arrays of uint8"
    raise InvalidRequest(_FAILURE, fields=[("images", text)])


def _label_ids(labels: Any, count: int) -> list[int]:
    if labels is None:
        return []
    ids = array_of("labels", labels, "class ids")
    if ids.shape != (count,) or ids.dtype.kind not in "iu" or (count and not 0 <= ids.min() <= ids.max() < 2**32):
        text = f"are {ids.dtype} of shape {ids.shape}; give one class id, 0 or more, for each of {count} images"
        raise InvalidRequest(_FAILURE, fields=[("labels", text)])
    return [int(each) for each in ids]
