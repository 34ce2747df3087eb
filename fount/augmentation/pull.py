"""One pull of a shard over as many attempts as it takes: what to ask for, whether what came is true, where to go on.

No I/O happens here. Row i of a plan is the same bytes always, so a stream that broke is asked for again from the first
row not yet received, and must be of the same plan, data set, models and numerics.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, SupportsIndex, TypedDict

from fount.augmentation.plan import AnyPlan, PinnedModelInfo, pinned_models, ticket_of
from fount.augmentation.rows import RowBatch, RowParts, read_row_batch
from fount.errors import BadReply, FountError, InvalidRequest
from fount.retry import Patience
from fount.sampling.decode import brief, read_shape
from fount.v1 import augmentation_pb2, model_pb2

__all__ = [
    "PARTS",
    "PROVENANCE_LEVELS",
    "HeaderExchange",
    "Level",
    "Part",
    "PullExchange",
    "PullInfo",
    "PullQuery",
    "provenance_level",
    "pull_request",
]

Level = Literal["none", "ids", "full"]
Part = Literal["plan", "out-of-bag"]

PROVENANCE_LEVELS = {
    "none": augmentation_pb2.PROVENANCE_LEVEL_NONE,
    "ids": augmentation_pb2.PROVENANCE_LEVEL_IDS,
    "full": augmentation_pb2.PROVENANCE_LEVEL_FULL,
}
"""How much each row may tell of where it came from."""

PARTS = {
    "plan": augmentation_pb2.PullDatasetRequest.PART_PLAN,
    "out-of-bag": augmentation_pb2.PullDatasetRequest.PART_OUT_OF_BAG,
}
"""Which rows a pull may be for."""


@dataclass(frozen=True, kw_only=True)
class PullInfo:
    """What a stream of rows is.

    Attributes:
        plan_id: the plan's id.
        rows: how many rows there are over all shards.
        first_index: index of the shard's first row.
        end_index: one beyond the shard's last row.
        shape: (height, width, channels) of one image.
        classes: class names by id.
        groups: group names by id; empty without a group column.
        dataset: the data set's name.
        dataset_digest: its digest.
        models: the models rows depend on.
        transform_columns: the columns of `RowBatch.transforms`; empty unless provenance is "full".
    """

    plan_id: str
    rows: int
    first_index: int
    end_index: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    dataset: str
    dataset_digest: str
    models: tuple[PinnedModelInfo, ...]
    transform_columns: tuple[str, ...]


class PullQuery(TypedDict, total=False):
    """Which rows of a plan, and what each tells; everything may be left out, and None is the same as leaving it out."""

    # Which shard, 0 to shards - 1; unset: 0.
    shard: SupportsIndex | None
    # Into how many the rows are cut, 1 to 65536; unset: as planned. Rows stay the same.
    shards: SupportsIndex | None
    # The row to begin at, counted in the plan and not in the shard; unset: the shard's first.
    start_index: SupportsIndex | None
    # One beyond the last row wanted, counted likewise; unset: the shard's end. What is not wanted is not made.
    end_index: SupportsIndex | None
    # How much each row tells of where it came from; unset: "ids".
    provenance: Level | None
    # The rows of the plan, or those of the data set that a bootstrap did not draw; unset: "plan".
    part: Part | None


def pull_request(plan: AnyPlan, query: PullQuery) -> augmentation_pb2.PullDatasetRequest:
    """Build the request for a shard's rows, whole and checked.

    Raises:
        InvalidRequest: a value is wrong whatever the plan.
        TypeError: an argument is unknown, or has a type it cannot have.
    """
    if unknown := query.keys() - PullQuery.__annotations__.keys():
        raise TypeError(f"pull() got an unexpected argument {sorted(unknown)[0]!r}")
    problems: list[tuple[str, str]] = []
    given = {name: value for name, value in query.items() if value is not None}
    numbers = {name: _whole(name, given[name], limits, problems) for name, limits in _NUMBERS.items() if name in given}
    if "shards" in numbers and numbers.get("shard", 0) >= numbers["shards"] and not problems:
        problems.append(("shard", f"is {numbers.get('shard', 0)} of {numbers['shards']}; shards count from 0"))
    level, part = provenance_level(str(given.get("provenance", "ids")), problems), str(given.get("part", "plan"))
    if part not in PARTS:
        problems.append(("part", f"is {part!r}; it may be {', '.join(PARTS)}"))
    if problems:
        raise InvalidRequest("The rows cannot be pulled:", fields=problems)
    request = augmentation_pb2.PullDatasetRequest(ticket=ticket_of(plan), provenance=level, part=PARTS[part])
    for name, number in numbers.items():
        setattr(request, name, number)
    return request


_NUMBERS = {"shard": (0, 65535), "shards": (1, 65536), "start_index": (0, 2**64 - 1), "end_index": (0, 2**64 - 1)}


def _whole(name: str, value: object, limits: tuple[int, int], problems: list[tuple[str, str]]) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    number = operator.index(value)
    if not limits[0] <= number <= limits[1]:
        problems.append((name, f"is {number}; it may be {limits[0]} to {limits[1]}"))
    return number


def provenance_level(provenance: str, problems: list[tuple[str, str]]) -> augmentation_pb2.ProvenanceLevel.ValueType:
    """The contract's value of a level; a problem when there is none."""
    if provenance not in PROVENANCE_LEVELS:
        problems.append(("provenance", f"is {provenance!r}; it may be {', '.join(PROVENANCE_LEVELS)}"))
    return PROVENANCE_LEVELS.get(provenance, augmentation_pb2.PROVENANCE_LEVEL_UNSPECIFIED)


class PullExchange:
    """A `PullDataset` call without its I/O.

    Attributes:
        patience: the time and attempts left.
        info: what the stream is; None until its header came.
    """

    def __init__(self, request: augmentation_pb2.PullDatasetRequest, patience: Patience) -> None:
        self._request, self.patience = request, patience
        self._header: augmentation_pb2.PullHeader | None = None
        self._parts = RowParts()
        self._is_headed = False  # in this attempt
        self._start = self._next = self._end = 0
        self.info: PullInfo | None = None

    def begin(self) -> augmentation_pb2.PullDatasetRequest:
        """The request to send now: the shard at first, the rest of it after a break."""
        self._parts, self._is_headed = RowParts(), False
        request = augmentation_pb2.PullDatasetRequest()
        request.CopyFrom(self._request)
        if self._header is not None:
            request.start_index = self._next
        return request

    def receive(self, response: augmentation_pb2.PullDatasetResponse) -> RowBatch | None:
        """Take one message in, and give the batch it completes.

        Raises:
            BadReply: it contradicts the request, or what came before.
            SampleFailed: rows failed otherwise than by being rejected.
        """
        kind = response.WhichOneof("kind")
        if kind == "header" and not self._is_headed:
            self._accept_header(response.header)
            return None
        if kind != "chunk" or not self._is_headed:
            raise BadReply(f"The stream has {'no kind of message' if kind is None else f'a {kind}'} out of its place")
        return self._accept_chunk(response.chunk)

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: rows are missing.
        """
        if self._header is None or not self._is_headed:
            raise BadReply("The stream ended without a header")
        if self._next != self._end:
            missing = self._end - self._next
            raise BadReply(f"The stream ended before row {self._next}; {missing} are missing")

    def recover(self, error: FountError) -> float | None:
        """Decide what a broken stream means.

        Returns:
            Seconds to wait before `begin`, or None when every row had come before it broke.

        Raises:
            FountError: the error itself, when it is final.
        """
        if self._header is None:
            return self.patience.delay_s(error)
        if self._next == self._end:
            return None
        count = self._end - self._start
        return self.patience.resume_delay_s(
            error, received=self._next - self._start, count=count, next_index=self._next
        )

    def _accept_header(self, header: augmentation_pb2.PullHeader) -> None:
        if self._header is None:
            start = self._request.start_index if self._request.HasField("start_index") else header.first_index
            if not header.first_index <= start <= header.end_index <= header.rows:
                raise BadReply(
                    f"The server gave rows {header.first_index} to {header.end_index} of {header.rows} for a shard "
                    f"from row {start}"
                )
            end = self._request.end_index if self._request.HasField("end_index") else header.end_index
            if not start <= end <= header.end_index:
                raise BadReply(f"The server gave rows {start} to {header.end_index} for those up to row {end}")
            self._start, self._next, self._end = start, start, end
            self.info = _pull_info(header)
        elif (changed := _changed(self._header, header)) is not None:
            raise BadReply(f"The server gave another {changed} after a break; rows would not belong together")
        self._header, self._is_headed = header, True

    def _accept_chunk(self, chunk: augmentation_pb2.RowChunk) -> RowBatch | None:
        if (whole := self._parts.join(chunk)) is None:
            return None
        samples = whole.samples
        assert self._header is not None and self.info is not None  # noqa: PT018 - a header came first
        if samples.start_index != self._next or not 0 < samples.count <= self._end - self._next:
            raise BadReply(
                f"Rows {self._next} to {self._end - 1} are due, but {samples.count} from {samples.start_index} came"
            )
        shape = read_shape(self._header.sample_spec, model_pb2.ENCODING_UINT8)
        batch = read_row_batch(whole, shape, groups=len(self.info.groups), columns=self.info.transform_columns)
        if batch.labels.min() < 0 or batch.labels.max() >= len(self.info.classes):
            raise BadReply(f"{brief(samples)} have labels that are none of the {len(self.info.classes)} classes")
        self._next += samples.count
        self.patience.take_progress()
        return batch


class HeaderExchange:
    """A pull that is only asked what its stream is."""

    def __init__(self, exchange: PullExchange) -> None:
        self._exchange = exchange

    @property
    def patience(self) -> Patience:
        """The time and attempts left."""
        return self._exchange.patience

    def receive(self, response: augmentation_pb2.PullDatasetResponse) -> PullInfo | None:
        """Take the header in.

        Raises:
            BadReply: it is none, or contradicts the request.
        """
        self._exchange.receive(response)
        return self._exchange.info

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: without a header.
        """
        self._exchange.finish()

    def recover(self, error: FountError) -> float | None:
        """Seconds to wait before the next attempt; raises the error when it is final."""
        return self._exchange.recover(error)


def _changed(before: augmentation_pb2.PullHeader, after: augmentation_pb2.PullHeader) -> str | None:
    """The first field of two headers that differs."""
    names = (name for name in before.DESCRIPTOR.fields_by_name if getattr(before, name) != getattr(after, name))
    return next(names, None)


def _pull_info(header: augmentation_pb2.PullHeader) -> PullInfo:
    return PullInfo(
        plan_id=header.plan_id,
        rows=header.rows,
        first_index=header.first_index,
        end_index=header.end_index,
        shape=read_shape(header.sample_spec, model_pb2.ENCODING_UINT8).dims,
        classes=tuple(header.classes),
        groups=tuple(header.groups),
        dataset=header.dataset,
        dataset_digest=header.dataset_digest,
        models=pinned_models(header.models),
        transform_columns=tuple(header.transform_columns),
    )
