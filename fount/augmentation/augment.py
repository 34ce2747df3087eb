"""One stream of variants over as many attempts as it takes: what to send, how much ahead of the answers, and what came.

No I/O happens here. Rows are cut into messages and kept until their variants came, a few messages at most; so a client
never runs far ahead of what it reads, and a stream that broke is asked for again from the first row not answered whole,
with the seed and the model that the server chose. Variants of a row depend on its own address alone, so they are the
same.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.plan import policy_message
from fount.augmentation.pull import Level, provenance_level
from fount.augmentation.rows import RowBatch, RowParts, read_row_batch
from fount.errors import BadReply, FountError, InvalidRequest
from fount.retry import Patience
from fount.sampling.decode import read_shape
from fount.sampling.request import model_ref
from fount.v1 import augmentation_pb2, model_pb2

__all__ = ["AugmentExchange", "AugmentQuery", "Images", "Rows", "augment_config", "cut_rows", "items_of"]

Images = NDArray[np.uint8]
"""(N, H, W, C) or (N, H, W) uint8."""

Rows = Images | Iterable[Images | tuple[Images, Any]]
"""What may be augmented: images, or an iterable of images or of pairs of images and labels."""

_MESSAGE_BYTES = 2**20
_MESSAGES_AHEAD = 4  # messages sent and not yet answered


class AugmentQuery(TypedDict, total=False):
    """What is done to every row of a stream; everything may be left out, and None is the same as leaving it out."""

    # A list as under `policy` in a plan file, or its message; unset: the safe policy of `dataset`, if it is named,
    # else a gentle one for any picture.
    policy: Sequence[Mapping[str, Any]] | Mapping[str, Any] | augmentation_pb2.TransformPolicy | None
    # How many of each row, 1 to 1000; unset: 1.
    variants: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one, which provenance tells.
    seed: SupportsIndex | None
    # Index of the first row; row i of a seed has the same variants always. Unset: 0.
    start_index: SupportsIndex | None
    # The data set whose safe policy is meant; unset: none.
    dataset: str | None
    # The transformer, as `Client.sample` names models; unset: the one that is served.
    model: str | None
    # How much each variant tells of what was done to it; unset: "ids".
    provenance: Level | None


def augment_config(query: AugmentQuery) -> augmentation_pb2.AugmentConfig:
    """Build the first message of a stream but for the shape of the images.

    Raises:
        InvalidRequest: values are wrong whatever the server; every one is named.
        TypeError: an argument is unknown, or has a type it cannot have.
    """
    if unknown := query.keys() - AugmentQuery.__annotations__.keys():
        raise TypeError(f"augment() got an unexpected argument {sorted(unknown)[0]!r}")
    problems: list[tuple[str, str]] = []
    config = augmentation_pb2.AugmentConfig(
        variants=_whole("variants", query.get("variants"), 1, (1, 1000), problems),
        start_index=_whole("start_index", query.get("start_index"), 0, (0, 2**64 - 1), problems),
        dataset=query.get("dataset") or "",
        provenance=provenance_level(query.get("provenance") or "ids", problems),
    )
    if (seed := query.get("seed")) is not None:
        config.seed = _whole("seed", seed, 0, (0, 2**64 - 1), problems)
    if problems:
        raise InvalidRequest("The rows cannot be augmented:", fields=problems)
    if (policy := query.get("policy")) is not None:
        config.policy.CopyFrom(policy_message(policy))
    if model := query.get("model"):
        config.model.CopyFrom(model_ref(model))
    return config


def _whole(
    name: str, value: SupportsIndex | None, unset: int, limits: tuple[int, int], problems: list[tuple[str, str]]
) -> int:
    number = unset if value is None else operator.index(value)
    if limits[0] <= number <= limits[1]:
        return number
    problems.append((name, f"is {number}; it may be {limits[0]} to {limits[1]}"))
    return unset


class AugmentExchange:
    """An `Augment` call without its I/O.

    Attributes:
        patience: the time and attempts left.
    """

    def __init__(self, config: augmentation_pb2.AugmentConfig, patience: Patience) -> None:
        self._config, self.patience = config, patience
        self._header: augmentation_pb2.AugmentHeader | None = None
        self._is_headed, self._parts = False, RowParts()  # of this attempt
        self._ahead: deque[tuple[int, augmentation_pb2.AugmentRows]] = deque()  # first row, rows; not answered whole
        self._sent_rows = config.start_index  # one beyond the last row that was sent
        self._start = self._next = config.start_index * config.variants  # index of the variant that is due
        self._due = self._next  # what this attempt sends next, which may have been received before it
        self._shape: tuple[int, ...] = ()

    @property
    def has_room(self) -> bool:
        """Whether another message may be sent before more variants come."""
        return len(self._ahead) < _MESSAGES_AHEAD

    @property
    def has_rows(self) -> bool:
        """Whether a row was sent at all."""
        return self._sent_rows > self._config.start_index

    def begin(self) -> list[augmentation_pb2.AugmentRequest]:
        """The messages to begin an attempt with: the config, and the rows whose variants are missing."""
        self._is_headed, self._parts = False, RowParts()
        first_row = self._next // self._config.variants
        config = augmentation_pb2.AugmentConfig()
        config.CopyFrom(self._config)
        config.start_index = first_row
        self._due = first_row * config.variants
        if self._header is not None:
            config.seed = self._header.seed
            config.policy.CopyFrom(self._header.policy)
            config.model.CopyFrom(self._header.model.model)
        rows = [self._without_answered(row, message, first_row) for row, message in self._ahead]
        return [
            augmentation_pb2.AugmentRequest(config=config),
            *(augmentation_pb2.AugmentRequest(rows=message) for message in rows),
        ]

    def send(self, rows: augmentation_pb2.AugmentRows, shape: tuple[int, ...]) -> augmentation_pb2.AugmentRequest:
        """Take note of the next message, and give it.

        Raises:
            InvalidRequest: its images have another shape than those before.
        """
        if not self._shape:
            self._shape = shape
            self._config.height, self._config.width, self._config.channels = shape
        if shape != self._shape:
            text = f"row {self._sent_rows} is of shape {shape} after rows of {self._shape}; send one shape a call"
            raise InvalidRequest("The rows cannot be augmented:", fields=[("images", text)])
        self._ahead.append((self._sent_rows, rows))
        self._sent_rows += rows.count
        return augmentation_pb2.AugmentRequest(rows=rows)

    def receive(self, response: augmentation_pb2.AugmentResponse) -> RowBatch | None:
        """Take one message in, and give the variants it completes that had not come before.

        Raises:
            BadReply: it contradicts the request, or what came before.
            SampleFailed: rows failed.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and not self._is_headed:
            self._accept_header(response.header)
            return None
        if kind != "chunk" or not self._is_headed:
            raise BadReply(f"The stream has {'no kind of message' if kind is None else f'a {kind}'} out of its place")
        chunk = self._parts.join(response.chunk)
        return None if chunk is None else self._accept_chunk(chunk)

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: variants are missing.
        """
        if (missing := self._sent_rows * self._config.variants - self._next) > 0:
            raise BadReply(f"The stream ended before variant {self._next}; {missing} are missing")

    def recover(self, error: FountError) -> float | None:
        """Decide what a broken stream means.

        Returns:
            Seconds to wait before `begin`.

        Raises:
            FountError: the error itself, when it is final.
        """
        count = self._sent_rows * self._config.variants - self._start
        return self.patience.resume_delay_s(
            error, received=self._next - self._start, count=count, next_index=self._next
        )

    def _accept_header(self, header: augmentation_pb2.AugmentHeader) -> None:
        wanted = self._header or header
        seed = self._config.seed if self._config.HasField("seed") else wanted.seed
        for field, due, got in (
            ("seed", seed, header.seed),
            ("variants", self._config.variants, header.variants),
            ("policy", wanted.policy, header.policy),
            ("model", wanted.model, header.model),
            ("shape", self._shape, read_shape(header.sample_spec, model_pb2.ENCODING_UINT8).dims),
        ):
            if due != got:
                raise BadReply(f"The server gave {field} {got!r} where {due!r} was due; variants would not match")
        self._header, self._is_headed = header, True

    def _accept_chunk(self, chunk: augmentation_pb2.RowChunk) -> RowBatch | None:
        samples, end = chunk.samples, self._sent_rows * self._config.variants
        if samples.start_index != self._due or not 0 < samples.count <= end - self._due:
            raise BadReply(
                f"Variants {self._due} to {end - 1} are due, but {samples.count} from {samples.start_index} came"
            )
        assert self._header is not None
        shape = read_shape(self._header.sample_spec, model_pb2.ENCODING_UINT8)
        batch = read_row_batch(chunk, shape, groups=0, columns=self._header.transform_columns)
        self._due += samples.count
        known = self._next - batch.start_index  # variants that had come before the stream broke
        if known >= len(batch):
            return None
        self._next = batch.end_index
        while self._ahead and (self._ahead[0][0] + self._ahead[0][1].count) * self._config.variants <= self._next:
            self._ahead.popleft()
        self.patience.take_progress()
        return batch.take(slice(known, None)) if known > 0 else batch

    def _without_answered(
        self, row: int, message: augmentation_pb2.AugmentRows, first_row: int
    ) -> augmentation_pb2.AugmentRows:
        done = max(first_row - row, 0)
        if not done:
            return message
        row_bytes = len(message.data) // message.count
        return augmentation_pb2.AugmentRows(
            count=message.count - done, labels=message.labels[done:], data=message.data[done * row_bytes :]
        )


# --- Rows as a caller has them ----------------------------------------------------------------------------------------


def items_of(images: Any, labels: Any) -> Any:
    """What a caller gives as an iterable of items for `cut_rows`: one array is one item.

    Raises:
        InvalidRequest: labels go with no array.
    """
    if isinstance(images, np.ndarray):
        return [(images, labels)]
    if labels is not None:
        text = "goes with one array of images; of several, give pairs of images and labels"
        raise InvalidRequest("The rows cannot be augmented:", fields=[("labels", text)])
    return images


def cut_rows(item: Any) -> Iterator[tuple[augmentation_pb2.AugmentRows, tuple[int, ...]]]:
    """Cut (N, H, W, C) or (N, H, W) uint8 images, alone or with N labels, into messages, each with its images' shape.

    Raises:
        InvalidRequest: it is of another type or shape, or labels are not one class id a row.
    """
    images, labels = item if isinstance(item, tuple) else (item, None)
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape[1:]:
        text = f"are {array.dtype} of shape {array.shape}; give uint8 of (rows, height, width, channels)"
        raise InvalidRequest("The rows cannot be augmented:", fields=[("images", text)])
    array = array[..., None] if array.ndim == 3 else array  # (N, H, W) -> (N, H, W, 1)
    ids = _label_ids(labels, len(array))
    rows = max(1, _MESSAGE_BYTES // array[0].nbytes) if len(array) else 1
    for first in range(0, len(array), rows):
        part = array[first : first + rows]
        message = augmentation_pb2.AugmentRows(count=len(part), labels=ids[first : first + rows], data=part.tobytes())
        yield message, array.shape[1:]


def _label_ids(labels: Any, count: int) -> list[int]:
    if labels is None:
        return []
    ids = np.asarray(labels)
    if ids.shape != (count,) or ids.dtype.kind not in "iu" or (count and not 0 <= ids.min() <= ids.max() < 2**32):
        text = f"are {ids.dtype} of shape {ids.shape}; give one class id, 0 or more, for each of {count} images"
        raise InvalidRequest("The rows cannot be augmented:", fields=[("labels", text)])
    return [int(each) for each in ids]
