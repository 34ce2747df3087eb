"""Served models and data sets as the client returns them: frozen values decoded from messages."""

from __future__ import annotations

from dataclasses import dataclass, field

from fount.latent.types import ScoreColumn, score_column
from fount.sampling.decode import decode, enum_name, pair
from fount.sampling.types import ModelId
from fount.v1 import dataset_pb2, model_pb2

__all__ = [
    "DatasetInfo", "DirectionInfo", "ModelInfo", "ParameterInfo", "QualityInfo", "SplitInfo", "dataset_info",
    "model_info",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ParameterInfo:
    """A sampling parameter of a model.

    Attributes:
        name: the argument of `Client.sample` that sets it.
        range: (smallest, largest), both included.
        default: the value when unset; None: off when unset.
    """

    name: str
    range: tuple[float, float]
    default: float | None
    description: str


@dataclass(frozen=True, kw_only=True)
class QualityInfo:
    """One measured metric.

    Attributes:
        value: the point estimate.
        interval: the 95 % interval.
        real_value: the same statistic for real data of the same size; None when there is none.
        method: how it was measured, with sizes.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    real_value: float | None
    method: str


@dataclass(frozen=True, kw_only=True)
class DirectionInfo:
    """An attribute that changes along a line in the latent space.

    Attributes:
        name: the `direction` of `Client.vary`.
        description: what changes, and by how much for one unit.
        vector: one unit, latent_dim numbers.
    """

    name: str
    description: str
    vector: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One served version of a model, with its card.

    Attributes:
        digest: the model digest, which pins it.
        is_default: whether the name alone means this version.
        state: "cold" (its workers start with the first request), "loading", "ready" or "unavailable".
        state_reason: why it is not ready; empty when it is.
        operations: its operations, as "sample" or "classify".
        labels: class names by index; empty when unconditional.
        prior: one weight a class, summing to 1; empty when unconditional.
        sample_shape: (height, width, channels) of one sample, (components,), or (-1,) of a text; empty when it has no
            samples.
        modality: "image", "vector" or "text", what a sample is; empty without a sample shape.
        dtype: element type in the default encoding, "uint8" or "float32"; empty without a sample shape.
        value_range: the smallest and largest element in the default encoding.
        encodings: those it supports of "uint8", "float32" and "png".
        max_count: the most samples of one request.
        max_labels: the most entries of `labels` in one request.
        max_text_bytes: the most UTF-8 bytes of a text, its prefix included; 0 when it is not of text.
        conditions: what samples can be conditional on besides a label, of "prefix" and "mask".
        prefix_unit: of how many bytes a prefix must be a multiple; 0 when it takes none.
        input_shape: (height, width, channels) of the pictures that it translates; empty when it translates none.
        numerics: numerics ids that may be pinned now.
        latent_dim: the length of a latent; 0 when it neither encodes nor decodes.
        latent_spread: root mean square of latents' standard deviations, the unit of `scale`; 0 without a latent.
        draw_steps: how many steps a draw takes without parameters.
        score_columns: what it scores of each row; empty when it scores nothing.
        directions: attributes that `Client.vary` can change; empty when none was measured.
    """

    name: str
    version: str
    digest: str
    is_default: bool
    state: str
    state_reason: str
    family: str
    description: str
    operations: tuple[str, ...]
    labels: tuple[str, ...]
    prior: tuple[float, ...]
    sample_shape: tuple[int, ...]
    modality: str
    dtype: str
    value_range: tuple[float, float]
    parameters: tuple[ParameterInfo, ...]
    encodings: tuple[str, ...]
    max_count: int
    max_labels: int
    max_text_bytes: int
    conditions: tuple[str, ...]
    prefix_unit: int
    input_shape: tuple[int, ...]
    numerics: tuple[str, ...]
    latent_dim: int
    latent_spread: float
    draw_steps: int
    score_columns: tuple[ScoreColumn, ...]
    directions: tuple[DirectionInfo, ...]
    quality: tuple[QualityInfo, ...]
    intended_use: str
    data_licence: str
    recipe: str

    @property
    def model(self) -> ModelId:
        """The model, named as in replies."""
        return ModelId(name=self.name, version=self.version, digest=self.digest)


def model_info(model: model_pb2.Model) -> ModelInfo:
    """Decode a model; enum values that only a newer server knows become numbers."""
    spec = model.sample_spec
    return decode(
        ModelInfo,
        model,
        name=model.ref.name,
        version=model.ref.version,
        digest=model.ref.digest,
        state=enum_name(model_pb2.Model.State, "STATE_", model.state),
        operations=tuple(enum_name(model_pb2.Operation, "OPERATION_", operation) for operation in model.operations),
        labels=tuple(label.name for label in sorted(model.condition.labels, key=lambda label: label.id)),
        prior=tuple(model.condition.prior),
        sample_shape=tuple(spec.dims),
        modality=enum_name(model_pb2.SampleSpec.Modality, "MODALITY_", spec.modality) if spec.modality else "",
        dtype=enum_name(model_pb2.Dtype, "DTYPE_", spec.dtype) if spec.dtype else "",
        value_range=pair(spec.value_range),
        parameters=tuple(map(_parameter, model.parameters)),
        encodings=tuple(enum_name(model_pb2.Encoding, "ENCODING_", encoding) for encoding in model.encodings),
        max_count=model.limits.max_count,
        max_labels=model.limits.max_labels,
        max_text_bytes=model.limits.max_text_bytes,
        conditions=tuple(enum_name(model_pb2.ConditionKind, "CONDITION_KIND_", each) for each in model.conditions),
        input_shape=tuple(model.input_spec.dims),
        score_columns=tuple(map(score_column, model.score_columns)),
        directions=tuple(decode(DirectionInfo, each) for each in model.directions),
        quality=tuple(decode(QualityInfo, each, interval=pair(each.interval)) for each in model.quality),
    )


def _parameter(parameter: model_pb2.ParameterSpec) -> ParameterInfo:
    default = parameter.default_value if parameter.HasField("default_value") else None
    return decode(ParameterInfo, parameter, range=pair(parameter.range), default=default)


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split of a data set, with its images per class and per group, by id; the latter are empty without groups."""

    name: str
    rows: int
    class_counts: tuple[int, ...]
    group_counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Labelled images that a gateway can augment.

    Attributes:
        digest: of the pixels and labels of all splits; empty when it cannot be read.
        classes: class names by id.
        groups: group names by id; empty without a group column.
        shape: (height, width, channels) of one image; empty when it cannot be read.
        splits: its splits, "train" first.
        classifier: the model that checks its labels; empty when none is configured.
        problem: why it cannot be read; empty when it can.
        background: what transparent pixels are composited on; empty when images with any are refused.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    shape: tuple[int, ...]
    splits: tuple[SplitInfo, ...]
    format: str
    licence: str
    classifier: str
    problem: str
    background: str
    message: dataset_pb2.Dataset = field(repr=False, compare=False)


def dataset_info(dataset: dataset_pb2.Dataset) -> DatasetInfo:
    """Decode a data set."""
    splits = tuple(decode(SplitInfo, split) for split in dataset.splits)
    return decode(DatasetInfo, dataset, shape=tuple(dataset.sample_spec.dims), splits=splits, message=dataset)
