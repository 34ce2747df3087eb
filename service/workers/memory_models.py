"""What the in-memory pool serves: models, and what they answer, as plain functions of what they are asked.

A sample is a function of its address and label, a class of an image's first pixel, features of all its pixels, a
transformed image of the image and its line of the table; so the address promise holds, and tests can say what they
expect.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.v1 import model_pb2
from service.domain import (
    Dtype,
    Encoding,
    Images,
    ManipulationItem,
    ModelKey,
    Operation,
    ParameterRange,
    RangeItem,
    ServedModel,
    TensorItem,
)

__all__ = [
    "indices_of",
    "memory_classify",
    "memory_embed",
    "memory_model",
    "memory_sample",
    "memory_transform",
]

_SURE = np.float32(0.9)  # of the class an image's first pixel names
_FEATURES = 8


def memory_model(
    name: str = "toy",
    version: str = "1",
    *,
    labels: tuple[str, ...] = ("zero", "one", "two"),
    dims: tuple[int, int, int] = (2, 3, 1),
    operations: frozenset[Operation] = frozenset({Operation.SAMPLE}),
    encodings: frozenset[Encoding] = frozenset(Encoding),
    max_count: int = 10_000_000,
) -> ServedModel:
    """A model for the in-memory pool; no labels make it unconditional."""
    key = ModelKey(
        name=name, version=version, digest="sha256:" + hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    )
    served = ServedModel(
        key=key,
        operations=operations,
        labels=labels,
        prior=tuple(1 / len(labels) for _ in labels),
        sample_dims=dims,
        value_range=(0.0, 1.0),
        parameters={
            "truncation": ParameterRange(minimum=0.5, maximum=4.0, default=None),
            "steps": ParameterRange(minimum=1, maximum=1000, default=None),
        },
        encodings=encodings,
        max_count=max_count,
        max_labels=1000,
        card=b"",
    )
    return replace(served, card=_card(served).SerializeToString())


def _card(model: ServedModel) -> model_pb2.Model:
    """The card the model would describe itself with."""
    labels = [model_pb2.Label(id=k, name=name) for k, name in enumerate(model.labels)]
    key = model.key
    return model_pb2.Model(
        ref=model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest),
        family="memory",
        description="A double.",
        operations=[model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in sorted(model.operations)],
        condition=model_pb2.ConditionSchema(labels=labels, prior=model.prior) if labels else None,
        sample_spec=model_pb2.SampleSpec(
            modality=model_pb2.SampleSpec.MODALITY_IMAGE,
            dtype=model_pb2.DTYPE_UINT8,
            dims=model.sample_dims,
            layout=model_pb2.SampleSpec.LAYOUT_HWC,
            value_range=model_pb2.ValueRange(min=0.0, max=255.0),
            encoding=model_pb2.ENCODING_UINT8,
        ),
        parameters=[
            model_pb2.ParameterSpec(name=name, range=model_pb2.ValueRange(min=each.minimum, max=each.maximum))
            for name, each in model.parameters.items()
        ],
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{each.name}") for each in sorted(model.encodings)],
        limits=model_pb2.Limits(max_count=model.max_count, max_labels=model.max_labels),
        value_range=model_pb2.ValueRange(min=model.value_range[0], max=model.value_range[1]),
    )


def memory_sample(model: ServedModel, item: RangeItem, truncation: float | None = None) -> Images:
    """The samples of a range: noise squeezed into [0, 1], with the label as the first pixel."""
    pixels = int(np.prod(model.sample_dims))
    addresses = Addresses(seeds=np.full(item.count, item.seed, np.uint64), indices=indices_of(item))
    z = addresses.normals(Stream.LATENT, pixels, truncation=truncation)
    values = np.clip(0.5 + z / 8, 0, 1).astype(np.float32)  # (n, pixels)
    values[:, 0] = 0 if item.labels is None else item.labels / np.float32(255)
    images = values.reshape(item.count, *model.sample_dims)
    return images if item.dtype is Dtype.FLOAT32 else np.rint(images * 255).astype(np.uint8)


def memory_classify(model: ServedModel, item: TensorItem) -> NDArray[np.float32]:
    """(n, classes) probabilities: 0.9 for the class the first pixel names, as samples carry it; even, if it is none."""
    classes = len(model.labels)
    first = item.rows[:, 0, 0, 0]
    named = first.astype(np.int64) if item.rows.dtype == np.uint8 else np.rint(first * 255).astype(np.int64)  # (n,)
    known = named < classes if classes > 1 else np.zeros(item.count, bool)
    even = np.float32(1 / classes)
    rest = (1 - _SURE) / np.float32(max(1, classes - 1))
    probabilities = np.where(known[:, None], rest, even).astype(np.float32).repeat(classes, axis=1)  # (n, classes)
    probabilities[np.flatnonzero(known), named[known]] = _SURE
    return probabilities


def memory_embed(item: TensorItem) -> NDArray[np.float32]:
    """(n, 8) features: fixed whole-number sums of an image's pixels, squeezed into (-1, 1)."""
    flat = item.rows.reshape(item.count, -1)  # (n, pixels)
    values = flat.astype(np.int64) if flat.dtype == np.uint8 else np.rint(flat * 255).astype(np.int64)
    pixel, feature = np.ogrid[: flat.shape[1], :_FEATURES]
    weights = (7 * pixel + 13 * feature + 5 * pixel * feature) % 17 - 8  # (pixels, 8), -8 to 8
    sums = values @ weights  # (n, 8), exact
    features: NDArray[np.float32] = np.tanh(sums / (255 * 4 * np.sqrt(flat.shape[1]))).astype(np.float32)
    return features


def memory_transform(item: ManipulationItem) -> NDArray[np.uint8]:
    """The images with a hundred times the sum of their line of the table added, wrapping; the first pixel stays."""
    shift = np.rint(100 * item.table.sum(axis=1, dtype=np.float64)).astype(np.int64) % 256  # (n,)
    made: NDArray[np.uint8] = item.rows + shift.astype(np.uint8)[:, None, None, None]
    made[:, 0, 0, 0] = item.rows[:, 0, 0, 0]
    return made


def indices_of(item: RangeItem | TensorItem | ManipulationItem) -> NDArray[np.uint64]:
    """(count,) uint64 sample indices; none of rows that have no address."""
    if isinstance(item, TensorItem):
        return np.zeros(0, np.uint64)
    if item.indices is not None:
        return item.indices
    return Addresses.of_range(item.seed, item.start_index, item.count).indices
