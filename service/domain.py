"""The models that pass between the packages of the service, and the values that describe a request to one.

A `ServedModel` describes what a model accepts, a `Target` the workers that may serve a stream. Protobuf is converted to
and from these values in `service.rpc` and `service.workers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from functools import cached_property

import numpy as np

__all__ = [
    "ConditionKind", "Dtype", "Encoding", "Modality", "ModelKey", "ModelState", "Operation", "ParameterRange",
    "Parameters", "Priority", "QualityFigure", "ServedModel", "Target",
]  # fmt: skip

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

    @property
    def draws(self) -> bool:
        """Whether it draws samples, perhaps in steps between which a call can be preempted."""
        return self in (Operation.SAMPLE, Operation.TRANSLATE)


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


class Modality(StrEnum):
    """What a sample is."""

    #: a picture, (H, W, C).
    IMAGE = "image"
    #: a vector of floats.
    VECTOR = "vector"
    #: UTF-8 text of varying length.
    TEXT = "text"


class ConditionKind(IntEnum):
    """What samples can be conditional on besides a label, numbered as in fount.v1.ConditionKind."""

    #: the beginning of a sample.
    PREFIX = 1
    #: any part of a picture.
    MASK = 2


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
    eta: float | None = None
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
        modality: what its samples are.
        sample_dims: (H, W, C) of pictures, (length,) of vectors, (max_text_bytes,) of texts: workers return texts as
            that many bytes, which end at the first zero byte.
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
        conditions: what samples can be conditional on besides a label.
        prefix_unit: of how many bytes a prefix must be a multiple; 0 without PREFIX.
        input_dims: (H, W, C) of the pictures that TRANSLATE takes; () without it.
    """

    key: ModelKey
    operations: frozenset[Operation]
    labels: tuple[str, ...]
    prior: tuple[float, ...]
    modality: Modality
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
    conditions: frozenset[ConditionKind] = frozenset()
    prefix_unit: int = 0
    input_dims: tuple[int, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether its samples are pictures."""
        return self.modality is Modality.IMAGE

    @property
    def is_text(self) -> bool:
        """Whether its samples are texts."""
        return self.modality is Modality.TEXT

    @property
    def max_text_bytes(self) -> int:
        """The most bytes of a text; 0 of other samples."""
        return self.sample_dims[0] if self.is_text else 0

    @property
    def default_encoding(self) -> Encoding:
        """The encoding of a request that sets none."""
        return Encoding.FLOAT32 if self.modality is Modality.VECTOR else Encoding.UINT8

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
