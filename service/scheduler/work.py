"""The values that enter and leave the scheduler: the work of a stream, its feed, and the pieces of its result.

A worker call takes any range of a stream's rows; the feed returns that range as one item of the call.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.calls import Failure, GivenItem, Item, Labels, RangeItem
from service.catalog import LabelSource
from service.domain import Dtype, Operation, Parameters, Priority, Target

__all__ = ["Feed", "GivenFeed", "Lane", "Piece", "Progress", "RangeFeed", "RequestContext", "Work"]

Lane = tuple[Operation, Parameters, tuple[int, ...]]
"""What streams must have in common to share a call: operation, parameters, and the shape of the rows sent."""


class Feed(Protocol):
    """The source of a stream's rows: a `RangeFeed`, a `GivenFeed`, or an item that contains all of them."""

    @property
    def row_dims(self) -> tuple[int, ...]:
        """The shape of a row that is sent; () when only addresses are sent."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the request to a worker; 0 when negligible."""
        ...

    def part(self, first: int, count: int) -> Item:
        """Return `count` rows from `first` on, as `Work` counts them."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeFeed:
    """Samples of consecutive indices, of any number: `first` is the sample's index, labels are computed when needed.

    Attributes:
        seed: of all samples.
        labels: where their labels come from.
        dtype: of the rows in the reply.
    """

    seed: int
    labels: LabelSource
    dtype: Dtype

    row_dims = ()
    row_bytes = 0

    def part(self, first: int, count: int) -> RangeItem:
        """Return the addresses with their labels."""
        labels = self.labels.labels(self.seed, first, count)
        return RangeItem(seed=self.seed, start_index=first, count=count, labels=labels, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenFeed:
    """Samples decoded from latents, or conditional on given values; `first` is the sample's index, as for `RangeFeed`.

    Attributes:
        rows: (n, ...), where row k belongs to the sample first_index + k; or (1, ...), of all samples.
        mask: the same, 1 where a value is given, else 0; None: all are.
        first_index: of the stream.
        seed: of the noise, and of labels that are drawn.
        labels: where they come from.
        dtype: of the rows in the reply.
    """

    rows: NDArray[np.uint8] | NDArray[np.float32]
    mask: NDArray[np.float32] | None
    first_index: int
    seed: int
    labels: LabelSource
    dtype: Dtype

    @cached_property
    def row_dims(self) -> tuple[int, ...]:
        """As of its items."""
        return self.part(self.first_index, 1).row_dims

    @cached_property
    def row_bytes(self) -> int:
        """As of its items."""
        return self.part(self.first_index, 1).row_bytes

    def part(self, first: int, count: int) -> GivenItem:
        """Return the values with their labels."""
        return GivenItem(
            rows=self._part_of(self.rows, first, count),
            labels=self.labels.labels(self.seed, first, count),
            seed=self.seed,
            indices=np.uint64(first) + np.arange(count, dtype=np.uint64),
            dtype=self.dtype,
            mask=None if self.mask is None else self._part_of(self.mask, first, count),
        )

    def _part_of(self, rows: NDArray[Any], first: int, count: int) -> NDArray[Any]:
        if len(rows) == 1:
            return np.broadcast_to(rows, (count, *rows.shape[1:]))
        return rows[first - self.first_index :][:count]


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """The request on whose behalf workers are called.

    Attributes:
        caller: who is charged.
        deadline_unix_s: when the result is no longer needed; None: never.
        request_id: for logs.
        priority: interactive work goes before bulk.
        retry_overloaded: retry when the gateway is too busy to start. False raises then, as the first work of a request
            should; work that has started is always continued.
    """

    caller: Caller
    deadline_unix_s: float | None = None
    request_id: str = ""
    priority: Priority = Priority.BULK
    retry_overloaded: bool = True

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None without one."""
        return None if self.deadline_unix_s is None else self.deadline_unix_s - time.time()


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The rows of one stream.

    Attributes:
        target: the workers that may serve them.
        feed: the request to workers for any range of them.
        start_index, count: which of the feed's rows.
        sample_bytes: size of one row of the result.
        context: on whose behalf.
        operation: what to do; streams of equal `lane` share calls.
        parameters: of the draw.
        row_cost: worker time of a row, in rows of the model's own size.
        draw_steps: steps of a draw whose parameters set none.
        ramp_up: keep the first calls short, because the reader uses the first rows at once.
        sample_bytes_estimated: sample_bytes is an estimate, because the width of the rows is not known yet.
        reports_progress: whether the stream reports what is done between two steps.
    """

    target: Target
    feed: Feed
    count: int
    sample_bytes: int
    context: RequestContext
    start_index: int = 0
    operation: Operation = Operation.SAMPLE
    parameters: Parameters = field(default_factory=Parameters)
    row_cost: float = 1.0
    draw_steps: int = 1
    ramp_up: bool = True
    sample_bytes_estimated: bool = False
    reports_progress: bool = False

    @property
    def has_given_values(self) -> bool:
        """Whether a draw keeps given values, whose steps return at once: how many do is not known here."""
        return self.operation is Operation.SAMPLE and bool(self.feed.row_dims)

    @cached_property
    def lane(self) -> Lane:
        """What other streams must have in common with this one to share its calls."""
        return self.operation, self.parameters, self.feed.row_dims


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Consecutive rows of one stream's result.

    Attributes:
        start_index: of the first row.
        rows: (n, ...), failed ones zero; samples are (n, H, W, C).
        labels: (n,), or None when the work has no labels.
        failures: by row.
    """

    start_index: int
    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    failures: dict[int, Failure]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the draws of one stream are, in steps of samples."""

    steps_done: int
    steps_total: int
