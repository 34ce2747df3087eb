"""A pull of a plan's rows over all its attempts: requests, checks of what is received, and where to resume.

No I/O happens here. A plan and a query enter, and then the messages of the gateway; checked `RowBatch` values leave.
Row i of a plan always has the same bytes, so after a break the rest is requested from the first row not yet received,
and must be of the same plan, data set, models and numerics.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, SupportsIndex, TypedDict

from fount.augmentation.plan import AnyPlan, PinnedModelInfo, ticket_of
from fount.augmentation.rows import RowBatch, RowParts, read_row_batch
from fount.augmentation.shards import MAX_SHARDS
from fount.errors import BadReply
from fount.retry import RetryState
from fount.sampling.arguments import UINT64_MAX, Arguments
from fount.sampling.decode import brief, decode, misplaced, read_shape
from fount.sampling.stream import IndexedStream
from fount.v1 import augmentation_pb2, model_pb2

__all__ = [
    "PARTS", "PROVENANCE_LEVELS", "Level", "Part", "PullInfo", "PullInfoStream", "PullQuery", "PullStream",
    "pull_request",
]  # fmt: skip

Level = Literal["none", "ids", "full"]
Part = Literal["plan", "out-of-bag"]

PROVENANCE_LEVELS = {
    "none": augmentation_pb2.PROVENANCE_LEVEL_NONE,
    "ids": augmentation_pb2.PROVENANCE_LEVEL_IDS,
    "full": augmentation_pb2.PROVENANCE_LEVEL_FULL,
}
"""How much provenance each row has."""

PARTS = {
    "plan": augmentation_pb2.PullDatasetRequest.PART_PLAN,
    "out-of-bag": augmentation_pb2.PullDatasetRequest.PART_OUT_OF_BAG,
}
"""Which rows a pull can request."""


@dataclass(frozen=True, kw_only=True)
class PullInfo:
    """The header of a stream of rows.

    Attributes:
        rows: number of rows over all shards.
        first_index: index of the shard's first row.
        end_index: one beyond the shard's last row.
        shape: (height, width, channels) of one image.
        classes: class names by id.
        groups: group names by id; empty without a group column.
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
    """Which rows of a plan to pull, with how much provenance; None is the same as leaving an argument out."""

    # The shard, 0 to shards - 1; unset: 0.
    shard: SupportsIndex | None
    # Number of shards, 1 to 65536; unset: that of the plan. Rows do not depend on it.
    shards: SupportsIndex | None
    # The first row, by its index in the plan and not in the shard; unset: the shard's first.
    start_index: SupportsIndex | None
    # One beyond the last row, by its index in the plan; unset: the shard's end. Other rows are not computed.
    end_index: SupportsIndex | None
    # How much provenance each row has; unset: "ids".
    provenance: Level | None
    # The rows of the plan, or those of the data set that a bootstrap did not draw; unset: "plan".
    part: Part | None


def pull_request(plan: AnyPlan, query: PullQuery) -> augmentation_pb2.PullDatasetRequest:
    """Build the request for the rows of a shard; wrong arguments are reported as in `fount.sampling.arguments`."""
    arguments = Arguments("pull", query, PullQuery.__annotations__, "The rows cannot be pulled:")
    shard, shards = arguments.whole("shard", 0, MAX_SHARDS - 1), arguments.whole("shards", 1, MAX_SHARDS)
    if shards is not None and (shard or 0) >= shards and not arguments.problems:
        arguments.add("shard", f"is {shard or 0} of {shards}; shards count from 0")
    request = augmentation_pb2.PullDatasetRequest(
        shard=shard or 0,
        shards=shards or 0,
        start_index=arguments.whole("start_index", 0, UINT64_MAX),
        end_index=arguments.whole("end_index", 0, UINT64_MAX),
        provenance=arguments.choice("provenance", PROVENANCE_LEVELS, "ids"),
        part=arguments.choice("part", PARTS, "plan"),
    )
    arguments.finish()
    request.ticket = ticket_of(plan)
    return request


class _Pull(IndexedStream):
    """A `PullDataset` call over all its attempts; its header gives the range of rows."""

    item = "row"

    def __init__(self, request: augmentation_pb2.PullDatasetRequest, retry: RetryState) -> None:
        super().__init__(retry, 0, 0)
        self._request = request
        self._header: augmentation_pb2.PullHeader | None = None
        self._info: PullInfo | None = None  # the header, decoded
        self._has_header, self._parts = False, RowParts()  # of this attempt

    @property
    def is_complete(self) -> bool:
        """Whether the header and every row were received."""
        return self._header is not None and super().is_complete

    def begin(self) -> augmentation_pb2.PullDatasetRequest:
        """Return the request of the next attempt: the shard at first, and the rest of it after a break."""
        self._has_header, self._parts = False, RowParts()
        request = deepcopy(self._request)
        if self._header is not None:
            request.start_index = self.next_index
        return request

    def finish(self) -> None:
        """Raise a BadReply if the stream ended without its header, or before its last row."""
        if not self._has_header:
            raise BadReply("The stream ended without a header.")
        super().finish()

    def _accept_header(self, response: augmentation_pb2.PullDatasetResponse) -> PullInfo:
        header = response.header
        if response.WhichOneof("kind") != "header" or self._has_header:
            raise misplaced(response.WhichOneof("kind"))
        if self._header is None or self._info is None:
            self._check_range(header)
            shape = read_shape(header.sample_spec, model_pb2.ENCODING_UINT8).dims
            models = tuple(decode(PinnedModelInfo, each) for each in header.models)
            self._info = decode(PullInfo, header, shape=shape, models=models)
        else:
            for name in header.DESCRIPTOR.fields_by_name:
                if getattr(self._header, name) != getattr(header, name):
                    raise BadReply(f"The server sent another {name} after a break; rows would not belong together.")
        self._header, self._has_header = header, True
        return self._info

    def _check_range(self, header: augmentation_pb2.PullHeader) -> None:
        start = self._request.start_index if self._request.HasField("start_index") else header.first_index
        if not header.first_index <= start <= header.end_index <= header.rows:
            shard = f"rows {header.first_index} to {header.end_index} of {header.rows}"
            raise BadReply(f"The server sent a shard with {shard}, but its rows from row {start} are due.")
        end = self._request.end_index if self._request.HasField("end_index") else header.end_index
        if not start <= end <= header.end_index:
            raise BadReply(f"The server sent rows {start} to {header.end_index}, but those up to row {end} are due.")
        self._start, self.next_index, self._end = start, start, end


class PullStream(_Pull):
    """The rows of a `PullDataset` call, over all its attempts."""

    def receive(self, response: augmentation_pb2.PullDatasetResponse) -> RowBatch | None:
        """Return the batch that a message completes; None for a header, or a part of a row.

        Raises:
            BadReply: it contradicts the request or an earlier message.
            SampleFailed: rows failed otherwise than by being rejected.
        """
        if response.WhichOneof("kind") != "chunk":
            self._accept_header(response)
            return None
        if self._header is None or self._info is None or not self._has_header:
            raise misplaced("chunk")
        if (chunk := self._parts.join(response.chunk)) is None:
            return None
        samples = chunk.samples
        if samples.start_index != self.next_index or not 0 < samples.count <= self._end - self.next_index:
            found = f"{samples.count} from row {samples.start_index}"
            raise BadReply(f"Rows {self.next_index} to {self._end - 1} are due, but {found} arrived.")
        shape = read_shape(self._header.sample_spec, model_pb2.ENCODING_UINT8)
        batch = read_row_batch(chunk, shape, groups=len(self._info.groups), columns=self._info.transform_columns)
        if batch.labels.min() < 0 or batch.labels.max() >= len(self._info.classes):
            classes = len(self._info.classes)
            raise BadReply(f"The chunk with {brief(samples)} has labels that are none of the {classes} classes.")
        self._advance(batch.end_index)
        return batch


class PullInfoStream(_Pull):
    """The header of a `PullDataset` call, without its rows."""

    def receive(self, response: augmentation_pb2.PullDatasetResponse) -> PullInfo:
        """Return the header, decoded."""
        return self._accept_header(response)
