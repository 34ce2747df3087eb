"""The values that pass between the packages of the service: models, worker calls and their outcomes.

A `ServedModel` describes what a model accepts, a `Target` the workers that may serve a stream, a `Call` the request to
one worker, a `Reply` its result. Protobuf is converted to and from these values in `service.rpc` and `service.workers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Call", "Dtype", "Encoding", "Failure", "FailureCode", "GivenItem", "Images", "Item", "Labels",
    "ManipulationItem", "ModelKey", "ModelState", "Operation", "Outcome", "ParameterRange", "Parameters", "Priority",
    "QualityFigure", "RangeItem", "Reply", "Rows", "SamplerState", "ServedModel", "Target", "TensorItem",
]  # fmt: skip

Labels = NDArray[np.uint32]
"""(n,) class indices."""

Images = NDArray[np.uint8] | NDArray[np.float32]
"""(n, H, W, C) samples."""

_ADDRESS_BYTES = 12  # an index and a label
_WHOLE = ("top_k", "steps", "importance_samples")  # parameters


class Operation(IntEnum):
    """What a worker can compute, numbered as in fount.v1.Operation."""

    SAMPLE = 1
    CLASSIFY = 2
    EMBED = 3
    TRANSFORM = 4
    ENCODE = 5
    DECODE = 6
    TRANSLATE = 7
    SCORE = 8


class Encoding(IntEnum):
    """How samples become bytes, numbered as in fount.v1.Encoding."""

    UINT8 = 1
    FLOAT32 = 2
    PNG = 3


class Dtype(IntEnum):
    """Element types, numbered as in fount.v1.Dtype."""

    UINT8 = 1
    FLOAT32 = 2

    @property
    def numpy(self) -> np.dtype[np.uint8] | np.dtype[np.float32]:
        """The little-endian numpy dtype."""
        return np.dtype(np.uint8) if self is Dtype.UINT8 else np.dtype("<f4")


class Priority(StrEnum):
    """How urgent a stream is."""

    #: throughput matters; streams share workers by cost.
    BULK = "bulk"
    #: latency matters: it goes before bulk, whose calls are kept short meanwhile.
    INTERACTIVE = "interactive"


class ModelState(Enum):
    """Whether a model can be used."""

    #: its workers are not started; a request starts them.
    COLD = "cold"
    #: its workers have not answered yet.
    LOADING = "loading"
    #: at least one worker passed its golden samples.
    READY = "ready"
    #: no worker can serve it.
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True, order=True)
class ModelKey:
    """A version of a model, as it is served."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ParameterRange:
    """A sampling parameter that a model accepts: its closed range and its default (None: off)."""

    minimum: float
    maximum: float
    default: float | None


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of a draw, as in fount.v1.Parameters; None: unset. Hashable: draws with equal ones share batches."""

    truncation: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    importance_samples: int | None = None
    prior_fit: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityFigure:
    """One quality figure of a model card: a metric's value and its interval (low, high)."""

    metric: str
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What one served version accepts and returns.

    Attributes:
        key: name, version, digest.
        operations: what its workers can compute.
        labels: class names by id; empty for an unconditional model.
        prior: one weight a label, summing to 1.
        sample_dims: (H, W, C) of pictures, (length,) of vectors.
        value_range: of the model's own float output.
        parameters: by name.
        encodings: of its samples.
        max_count, max_labels: limits of one request.
        card: the serialized fount.v1.Model by which its worker described itself.
        quality: figures measured when the model was trained.
        latent_dim: length of z; 0 without ENCODE and DECODE.
        latent_spread: root mean square of the standard deviations of the training rows' latents.
        draw_steps: steps of a draw without parameters.
        score_columns: names of what SCORE returns for each row.
        directions: of the latent space, by name: (latent_dim,) each.
    """

    key: ModelKey
    operations: frozenset[Operation]
    labels: tuple[str, ...]
    prior: tuple[float, ...]
    sample_dims: tuple[int, ...]
    value_range: tuple[float, float]
    parameters: Mapping[str, ParameterRange]
    encodings: frozenset[Encoding]
    max_count: int
    max_labels: int
    card: bytes = field(repr=False)
    quality: tuple[QualityFigure, ...] = ()
    latent_dim: int = 0
    latent_spread: float = 1.0
    draw_steps: int = 1
    score_columns: tuple[str, ...] = ()
    directions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether its samples are pictures; vectors otherwise."""
        return len(self.sample_dims) == len("HWC")

    @cached_property
    def default_parameters(self) -> Parameters:
        """The parameters of a request that sets none."""
        defaults = {name: each.default for name, each in self.parameters.items()}
        whole = {name: int(value) for name in _WHOLE if (value := defaults.get(name)) is not None}
        return Parameters(**(defaults | whole))  # type: ignore[arg-type]  # each value has its field's type

    def sample_bytes(self, dtype: Dtype) -> int:
        """Return the bytes of one raw sample."""
        return math.prod(self.sample_dims) * dtype.numpy.itemsize


@dataclass(frozen=True, kw_only=True)
class Target:
    """The workers that may serve a stream: those of one model and one numerics id."""

    model: ModelKey
    numerics: str


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
    """

    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    seed: int
    indices: NDArray[np.uint64]
    dtype: Dtype

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def row_dims(self) -> tuple[int, ...]:
        """The shape of a row, and 1 if it has a label: rows with and without never share a call."""
        return (*self.rows.shape[1:], int(self.labels is not None))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row with its address."""
        return self.rows.nbytes // max(1, len(self.rows)) + _ADDRESS_BYTES

    def part(self, first: int, count: int) -> GivenItem:
        """Return views of some rows."""
        rows = slice(first, first + count)
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, rows=self.rows[rows], labels=labels, indices=self.indices[rows])


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
