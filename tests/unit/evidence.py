"""Evidence made of Gaussians: small pictures whose pixels, features and classes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, Nearest, RealRows, Samples
from service.evaluation.statistics.distances import nearest

CLASSES = ("zero", "one", "two")
SIDE, FEATURES = 6, 8
_MAP = np.random.default_rng(99).normal(size=(SIDE * SIDE, FEATURES)) / SIDE
_CENTRES = np.random.default_rng(98).uniform(60, 190, (len(CLASSES), SIDE * SIDE))


def images_of(labels, seed: int, deviation: float = 20.0):
    """(n, 6, 6, 1) uint8, every class around a centre of its own."""
    random = np.random.default_rng(seed)
    values = _CENTRES[labels] + random.normal(0, deviation, (len(labels), SIDE * SIDE))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 1)


def read(images):
    """Features: a fixed linear map; probabilities: by the distance to the classes' centres."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = ((flat[:, None] - _CENTRES) ** 2).sum(axis=2) / 2000  # (n, classes)
    weights = np.exp(squares.min(axis=1, keepdims=True) - squares)
    features = flat @ _MAP / 10
    return features.astype(np.float32), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def labels_of(count: int):
    """Classes in turn."""
    return np.arange(count) % len(CLASSES)


def real(count: int, seed: int) -> RealRows:
    labels = labels_of(count)
    images = images_of(labels, seed)
    features, probabilities = read(images)
    return RealRows(images=images, labels=labels, features=features, probabilities=probabilities)


def samples_of(images, labels: Sequence[int] | None) -> Samples:
    features, probabilities = read(images)
    of = None if labels is None else np.asarray(labels, np.int64)
    indices = np.arange(len(images), dtype=np.uint64)
    return Samples(indices=indices, images=images, labels=of, features=features, probabilities=probabilities)


def near(samples: Samples, held_out: RealRows, training: RealRows) -> dict[str, Nearest]:
    found = {}
    for space in ("images", "features"):
        rows = getattr(training, space)
        distances, numbers = nearest(getattr(samples, space), rows, NEIGHBOURS)
        real_distances, _ = nearest(getattr(held_out, space), rows, NEIGHBOURS)
        found["pixels" if space == "images" else space] = Nearest(
            sample_distances=distances, sample_rows=numbers[:, 0], held_out_distances=real_distances
        )
    return found


def answers_of(images) -> LabelGrid:
    """(addresses, classes, H, W, C) as the classifier reads them."""
    flat = images.reshape(-1, *images.shape[2:])
    predicted = np.argmax(read(flat)[1], axis=1).reshape(images.shape[:2])
    return LabelGrid(images=images, predicted=predicted)


def evidence(
    images=None, labels=None, *, conditional: bool = True, count: int = 600, training: int = 2400, held_out: int = 600
) -> Evidence:
    """What panels look at; without images the samples are real rows."""
    of = labels_of(count) if labels is None else labels
    drawn = images_of(of, seed=1) if images is None else images
    samples = samples_of(drawn, of if conditional else None)
    unseen, seen = real(held_out, seed=2), real(training, seed=3)
    sheet = images_of(np.tile(np.arange(len(CLASSES)), 40), seed=4).reshape(40, len(CLASSES), SIDE, SIDE, 1)
    return Evidence(
        samples=samples, failed=0, held_out=unseen, training=seen, nearest=near(samples, unseen, seen),
        label_grid=answers_of(sheet) if conditional else None, classes=CLASSES, seed=7,
    )  # fmt: skip


def with_samples(of: Evidence, samples: Samples) -> Evidence:
    """The same evidence of other samples."""
    return replace(of, samples=samples, nearest=near(samples, of.held_out, of.training))
