"""Calls of workers: their items, and the replies to them.

A `Call` is the request to one worker, a `Reply` its result. Protobuf is converted to and from these values in
`service.workers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from service.domain import Dtype, Operation, Parameters, Target

__all__ = [
    "Call", "Failure", "FailureCode", "GivenItem", "Images", "Item", "Labels", "ManipulationItem", "Outcome",
    "RangeItem", "Reply", "Rows", "SamplerState", "TensorItem",
]  # fmt: skip

Labels = NDArray[np.uint32]
"""(n,) class indices."""

Images = NDArray[np.uint8] | NDArray[np.float32]
"""(n, H, W, C) samples."""

_ADDRESS_BYTES = 12  # an index and a label


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerState:
    """A draw of many steps that was preempted before `next_step`: (n, ...) float32 state, one row a sample."""

    next_step: int
    state: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeItem:
    """Addresses to draw: consecutive ones, or those of `indices`.

    Attributes:
        seed, start_index, count: of the addresses.
        labels: (count,), or None for an unconditional model.
        dtype: of the rows in the reply.
        resume_from: the state of a preempted draw; None: from the first step.
        indices: (count,) uint64 when they are not consecutive; start_index is then 0.
    """

    seed: int
    start_index: int
    count: int
    labels: Labels | None
    dtype: Dtype
    resume_from: SamplerState | None = None
    indices: NDArray[np.uint64] | None = None

    row_dims = ()
    row_bytes = _ADDRESS_BYTES

    def resumed(self, state: SamplerState) -> RangeItem:
        """Return the same draws, preempted in this state."""
        return replace(self, resume_from=state)

    def part(self, first: int, count: int) -> RangeItem:
        """Return some of the addresses, none drawn yet; indices that are consecutive become a start index."""
        start_index, indices = self.start_index + first, None
        if self.indices is not None:
            indices = self.indices[first : first + count]
            start_index = 0
            # uint64 differences wrap: from the last index to 0 is a step of one.
            if indices[0] <= indices[-1] and (np.diff(indices) == 1).all():
                start_index, indices = int(indices[0]), None
        labels = None if self.labels is None else self.labels[first : first + count]
        return replace(self, start_index=start_index, count=count, labels=labels, indices=indices)


class _ImageRows:
    rows: Images

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def row_dims(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.rows.shape[1:]


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorItem(_ImageRows):
    """Rows to classify or embed: (n, H, W, C) uint8, or float32 in the model's value range."""

    rows: Images

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return self.rows.nbytes // max(1, len(self.rows))

    def part(self, first: int, count: int) -> TensorItem:
        """Return a view of some rows."""
        return TensorItem(rows=self.rows[first : first + count])


@dataclass(frozen=True, kw_only=True, eq=False)
class ManipulationItem(_ImageRows):
    """Rows to transform, (n, H, W, C) uint8.

    Attributes:
        table: (n, columns) float32, the transforms of each row, in the order of `fount.transforms.COLUMNS`.
        seed, indices: addresses of the noise; indices are (n,) uint64.
    """

    rows: NDArray[np.uint8]
    table: NDArray[np.float32]
    seed: int
    indices: NDArray[np.uint64]

    @property
    def row_bytes(self) -> int:
        """Bytes of an image with its row of the table and its address."""
        return (self.rows.nbytes + self.table.nbytes) // max(1, len(self.rows)) + _ADDRESS_BYTES

    def part(self, first: int, count: int) -> ManipulationItem:
        """Return views of some rows."""
        rows = slice(first, first + count)
        return replace(self, rows=self.rows[rows], table=self.table[rows], indices=self.indices[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenItem:
    """Rows to encode, decode, score or translate, or that samples are conditional on.

    Attributes:
        rows: (n, ...) uint8, or float32 in the model's value range; (n, latent_dim) float32 to decode.
        labels: (n,); None for an unconditional model, or for log p(x) of any model.
        seed, indices: addresses of the noise; indices are (n,) uint64.
        dtype: of the rows in the reply.
        mask: (n, ...) float32, 1 where a value is given, else 0; None: all are.
    """

    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    seed: int
    indices: NDArray[np.uint64]
    dtype: Dtype
    mask: NDArray[np.float32] | None = None

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def row_dims(self) -> tuple[int, ...]:
        """The shape of a row, and whether it has a label and a mask: rows with and without never share a call."""
        return (*self.rows.shape[1:], int(self.labels is not None), int(self.mask is not None))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row with its mask and address."""
        mask_bytes = 0 if self.mask is None else self.mask.nbytes
        return (self.rows.nbytes + mask_bytes) // max(1, len(self.rows)) + _ADDRESS_BYTES

    def resumed(self, state: SamplerState) -> RangeItem:
        """Return the same draws, preempted in this state, which holds the given values."""
        return RangeItem(
            seed=self.seed,
            start_index=0,
            count=self.count,
            labels=self.labels,
            dtype=self.dtype,
            resume_from=state,
            indices=self.indices,
        )

    def part(self, first: int, count: int) -> GivenItem:
        """Return views of some rows."""
        rows = slice(first, first + count)
        labels = None if self.labels is None else self.labels[rows]
        mask = None if self.mask is None else self.mask[rows]
        return replace(self, rows=self.rows[rows], labels=labels, indices=self.indices[rows], mask=mask)


Item = RangeItem | TensorItem | ManipulationItem | GivenItem
"""One item of a call."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One worker call.

    Attributes:
        target: the workers that may execute it.
        operation: what to compute.
        parameters: of the draw.
        items: the inputs; outcomes have the same order.
        deadline_unix_s: when the result is no longer needed; None: never.
        request_id: for logs.
        step_limit: how many steps of a draw to take; None: all. A draw that needs more is returned as SamplerState.
        cost_s: how long a worker is expected to take; None: unknown. The least loaded worker is chosen by it.
    """

    target: Target
    operation: Operation
    parameters: Parameters
    items: tuple[Item, ...]
    deadline_unix_s: float | None = None
    request_id: str = ""
    step_limit: int | None = None
    cost_s: float | None = None


class FailureCode(IntEnum):
    """The google.rpc codes that the service itself gives a meaning."""

    CANCELLED = 1
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an item or a row has no value: a google.rpc code, a reason for programs, a message for users."""

    code: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The result of an item: one row for each of its inputs; failed rows are zero and have a `Failure`."""

    array: NDArray[np.uint8] | NDArray[np.float32]
    failures: Mapping[int, Failure]


Outcome = Rows | Failure | SamplerState


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """The result of a call: outcomes in order, and how long the worker computed."""

    outcomes: tuple[Outcome, ...]
    compute_s: float
