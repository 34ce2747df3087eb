"""The models of the in-memory pool: closed-form functions of the request, so that tests can compute expected results.

A sample depends on its address and label alone, as real models guarantee; a class on an image's first pixel, features
on all its pixels, a transformed image on the image and its row of the manipulation table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.v1 import model_pb2
from service.calls import GivenItem, Images, Item, ManipulationItem, RangeItem, TensorItem
from service.domain import ConditionKind, Dtype, Encoding, Operation, ServedModel
from service.workers.torchserve.describe import card_to_model

__all__ = [
    "indices_of",
    "memory_classify",
    "memory_embed",
    "memory_given",
    "memory_model",
    "memory_sample",
    "memory_transform",
    "memory_translate",
]

_CONFIDENCE = np.float32(0.9)  # in the class that an image's first pixel contains
_FEATURES = 8
_LETTERS = b"abcdefghijklm nopqrstuvwxyz"


def memory_model(
    name: str = "toy",
    version: str = "1",
    *,
    labels: tuple[str, ...] = ("zero", "one", "two"),
    dims: tuple[int, ...] = (2, 3, 1),
    operations: frozenset[Operation] = frozenset({Operation.SAMPLE}),
    encodings: frozenset[Encoding] = frozenset(Encoding),
    max_count: int = 10_000_000,
    max_text_bytes: int = 0,
    latent_dim: int = 0,
    score_columns: tuple[str, ...] = (),
    directions: Mapping[str, tuple[float, ...]] | None = None,
    conditions: frozenset[ConditionKind] = frozenset(),
    prefix_unit: int = 1,
    draw_steps: int = 1,
    input_dims: tuple[int, ...] = (),
) -> ServedModel:
    """Make a model for the in-memory pool; without labels it is unconditional.

    One dimension is of vectors; with `max_text_bytes` it is of text, and dims mean nothing. Given values are kept. One
    that translates takes pictures of `input_dims`.
    """
    is_image = len(dims) == len("HWC")
    uint8s = (model_pb2.DTYPE_UINT8, model_pb2.ValueRange(min=0.0, max=255.0), model_pb2.ENCODING_UINT8)
    floats = (model_pb2.DTYPE_FLOAT32, model_pb2.ValueRange(min=0.0, max=1.0), model_pb2.ENCODING_FLOAT32)
    dtype, value_range, encoding = uint8s if is_image else floats
    encodings = encodings if is_image else frozenset({Encoding.FLOAT32}) & encodings
    encodings = frozenset({Encoding.UINT8}) & encodings if max_text_bytes else encodings
    digest = "sha256:" + hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    condition = model_pb2.ConditionSchema(
        labels=[model_pb2.Label(id=k, name=label) for k, label in enumerate(labels)],
        prior=[1 / len(labels) for _ in labels] if operations != {Operation.TRANSLATE} else (),
    )
    spec = model_pb2.SampleSpec
    ranges = {"truncation": (0.5, 4.0), "steps": (1, 1000)}
    card = model_pb2.Model(
        ref=model_pb2.ModelRef(name=name, version=version, digest=digest),
        family="memory",
        description="A test double.",
        operations=[model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in sorted(operations)],
        condition=condition if labels else None,
        sample_spec=spec(
            modality=spec.MODALITY_IMAGE if is_image else spec.MODALITY_VECTOR,
            dtype=dtype,
            dims=dims,
            layout=spec.LAYOUT_HWC if is_image else spec.LAYOUT_C,
            value_range=value_range,
            encoding=encoding,
        ),
        parameters=[
            model_pb2.ParameterSpec(name=name, range=model_pb2.ValueRange(min=low, max=high))
            for name, (low, high) in ranges.items()
        ],
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{each.name}") for each in sorted(encodings)],
        limits=model_pb2.Limits(max_count=max_count, max_labels=1000, max_text_bytes=max_text_bytes),
        value_range=model_pb2.ValueRange(min=0.0, max=1.0),
        latent_dim=latent_dim,
        latent_spread=1.0 if latent_dim else 0.0,
        draw_steps=draw_steps,
        conditions=[model_pb2.ConditionKind.Value(f"CONDITION_KIND_{each.name}") for each in sorted(conditions)],
        prefix_unit=prefix_unit if ConditionKind.PREFIX in conditions else 0,
        score_columns=[
            model_pb2.ScoreColumn(
                name=name, unit="nats", kind=model_pb2.ScoreColumn.KIND_EXACT, description="Of a test double."
            )
            for name in score_columns
        ],
        directions=[
            model_pb2.Direction(name=name, description="Of a test double.", vector=vector)
            for name, vector in (directions or {}).items()
        ],
    )
    if input_dims:
        card.input_spec.CopyFrom(card.sample_spec)
        card.input_spec.dims[:] = input_dims
    if max_text_bytes:
        card.sample_spec.modality, card.sample_spec.layout = spec.MODALITY_TEXT, spec.LAYOUT_T
        card.sample_spec.dims[:] = [-1]
    return card_to_model(card)


def memory_sample(model: ServedModel, item: RangeItem, truncation: float | None = None) -> Images:
    """Draw the samples of a range: noise scaled and clipped to [0, 1], with the label as the first pixel.

    Of texts: letters and spaces of the same noise, (n, max_text_bytes) uint8; the last value is how long the text is.
    """
    pixels = int(np.prod(model.sample_dims))
    addresses = Addresses(seeds=np.full(item.count, item.seed, np.uint64), indices=indices_of(item))
    z = addresses.normals(Stream.LATENT, pixels, truncation=truncation)
    values = np.clip(0.5 + z / 8, 0, 1).astype(np.float32)  # (n, pixels)
    if model.is_text:
        texts = np.frombuffer(_LETTERS, np.uint8)[(values * (len(_LETTERS) - 1)).astype(np.int64)]  # (n, bytes)
        texts[np.arange(pixels) >= np.rint(values[:, -1:] * pixels)] = 0
        return texts
    values[:, 0] = 0 if item.labels is None else item.labels / np.float32(255)
    images = values.reshape(item.count, *model.sample_dims)
    return images if item.dtype is Dtype.FLOAT32 else np.rint(images * 255).astype(np.uint8)


def memory_classify(model: ServedModel, item: TensorItem) -> NDArray[np.float32]:
    """Return (n, classes) probabilities: 0.9 for the class in the first pixel; uniform, if it is not a class."""
    classes = len(model.labels)
    first = item.rows[:, 0, 0, 0]
    label = first.astype(np.int64) if item.rows.dtype == np.uint8 else np.rint(first * 255).astype(np.int64)  # (n,)
    known = label < classes if classes > 1 else np.zeros(item.count, bool)
    uniform = np.float32(1 / classes)
    rest = (1 - _CONFIDENCE) / np.float32(max(1, classes - 1))
    probabilities = np.where(known[:, None], rest, uniform).astype(np.float32).repeat(classes, axis=1)  # (n, classes)
    probabilities[np.flatnonzero(known), label[known]] = _CONFIDENCE
    return probabilities


def memory_embed(item: TensorItem) -> NDArray[np.float32]:
    """Return (n, 8) features: tanh of fixed integer combinations of an image's pixels."""
    flat = item.rows.reshape(item.count, -1)  # (n, pixels)
    values = flat.astype(np.int64) if flat.dtype == np.uint8 else np.rint(flat * 255).astype(np.int64)
    pixel, feature = np.ogrid[: flat.shape[1], :_FEATURES]
    weights = (7 * pixel + 13 * feature + 5 * pixel * feature) % 17 - 8  # (pixels, 8), -8 to 8
    sums = values @ weights  # (n, 8), exact
    features: NDArray[np.float32] = np.tanh(sums / (255 * 4 * np.sqrt(flat.shape[1]))).astype(np.float32)
    return features


def memory_given(model: ServedModel, operation: Operation, item: GivenItem) -> Images:
    """Encode, decode or score rows, exactly.

    The mean of a row's latent is its first values in [0, 1], its deviation 0.25. A latent decodes to its values
    clipped to [0, 1], then zeros, with the label as the last value. The score of column c is c, minus the sum of the
    row, plus 100 times the label.
    """
    flat = item.rows.reshape(item.count, -1)  # (n, values)
    rows = np.asarray(flat / np.float32(255) if flat.dtype == np.uint8 else flat, np.float32)
    labels = np.zeros(item.count, np.float32) if item.labels is None else item.labels.astype(np.float32)
    if operation is Operation.ENCODE:
        mean = rows[:, : model.latent_dim]
        return np.stack([mean, np.full_like(mean, 0.25)], axis=1)  # (n, 2, latent_dim)
    if operation is Operation.SCORE:
        columns = np.arange(len(model.score_columns), dtype=np.float32)
        scores: NDArray[np.float32] = columns - rows.sum(axis=1, keepdims=True) + 100 * labels[:, None]  # (n, columns)
        return scores
    images = np.zeros((item.count, math.prod(model.sample_dims)), np.float32)
    images[:, : model.latent_dim] = rows.clip(0, 1)
    images[:, -1] = labels / np.float32(255)
    images = images.reshape(item.count, *model.sample_dims)
    return images if item.dtype is Dtype.FLOAT32 else np.rint(images * 255).astype(np.uint8)


def memory_translate(model: ServedModel, levels: NDArray[np.float32], item: RangeItem | GivenItem) -> Images:
    """Return negatives of images, (n, values) from 0 to 255, repeated to the size of a sample.

    The first pixel is the label, the last one the sample's index modulo 256.
    """
    places = np.arange(math.prod(model.sample_dims)) % levels.shape[1]
    images = 255 - levels[:, places]
    images[:, 0] = 0 if item.labels is None else item.labels
    images[:, -1] = indices_of(item) % np.uint64(256)
    images = images.reshape(item.count, *model.sample_dims)
    return images / np.float32(255) if item.dtype is Dtype.FLOAT32 else images.astype(np.uint8)


def memory_transform(item: ManipulationItem) -> NDArray[np.uint8]:
    """Add a hundred times the sum of an image's table row to it, modulo 256; the first pixel is unchanged."""
    shift = np.rint(100 * item.table.sum(axis=1, dtype=np.float64)).astype(np.int64) % 256  # (n,)
    images: NDArray[np.uint8] = item.rows + shift.astype(np.uint8)[:, None, None, None]
    images[:, 0, 0, 0] = item.rows[:, 0, 0, 0]
    return images


def indices_of(item: Item) -> NDArray[np.uint64]:
    """Return the (count,) uint64 sample indices; empty for rows without an address."""
    if isinstance(item, TensorItem):
        return np.zeros(0, np.uint64)
    if item.indices is not None:
        return item.indices
    return Addresses.of_range(item.seed, item.start_index, item.count).indices
