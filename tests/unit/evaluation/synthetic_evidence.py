"""Synthetic evidence of Gaussian classes: small images whose features and classes follow from their pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, LogLikelihoods, Nearest, RealRows, Samples
from service.evaluation.panels.registry import evaluate_panel, parts_of
from service.evaluation.results import Metric, Panel, PanelResult
from service.evaluation.statistics.distances import nearest

CLASSES = ("zero", "one", "two")
SIDE, FEATURES = 6, 8
_MAP = np.random.default_rng(99).normal(size=(SIDE * SIDE, FEATURES)) / SIDE
_CENTRES = np.random.default_rng(98).uniform(60, 190, (len(CLASSES), SIDE * SIDE))


def images_of(labels, seed: int, deviation: float = 20.0):
    """Draw (n, 6, 6, 1) uint8, each class around its own centre."""
    random = np.random.default_rng(seed)
    values = _CENTRES[labels] + random.normal(0, deviation, (len(labels), SIDE * SIDE))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 1)


def classify(images):
    """Compute features by a fixed linear map, and probabilities by the distance to the classes' centres."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = ((flat[:, None] - _CENTRES) ** 2).sum(axis=2) / 2000  # (n, classes)
    weights = np.exp(squares.min(axis=1, keepdims=True) - squares)
    features = flat @ _MAP / 10
    return features.astype(np.float32), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def labels_of(count: int):
    """Return classes 0, 1, 2, 0, 1, 2, ..."""
    return np.arange(count) % len(CLASSES)


def real(count: int, seed: int) -> RealRows:
    labels = labels_of(count)
    images = images_of(labels, seed)
    features, probabilities = classify(images)
    numbers = np.arange(count)
    return RealRows(images=images, labels=labels, features=features, probabilities=probabilities, numbers=numbers)


def samples_of(images, labels: Sequence[int] | None) -> Samples:
    features, probabilities = classify(images)
    of = None if labels is None else np.asarray(labels, np.int64)
    indices = np.arange(len(images), dtype=np.uint64)
    return Samples(indices=indices, images=images, labels=of, features=features, probabilities=probabilities)


def near(samples: Samples, held_out: RealRows, training: RealRows) -> dict[str, Nearest]:
    result = {}
    for space in ("images", "features"):
        rows = getattr(training, space)
        distances, numbers = nearest(getattr(samples, space), rows, NEIGHBOURS)
        real_distances, _ = nearest(getattr(held_out, space), rows, NEIGHBOURS)
        result["pixels" if space == "images" else space] = Nearest(
            sample_distances=distances, sample_rows=numbers[:, 0], held_out_distances=real_distances
        )
    return result


def label_grid_of(images) -> LabelGrid:
    """Make a label grid of images (addresses, classes, H, W, C)."""
    flat = images.reshape(-1, *images.shape[2:])
    predicted = np.argmax(classify(flat)[1], axis=1).reshape(images.shape[:2])
    return LabelGrid(images=images, predicted=predicted)


def log_likelihoods(gap: float = 0.0, *, rows: int = 600) -> LogLikelihoods:
    """Make scores of real rows with a standard deviation of 10 nats, those of training rows higher by `gap`."""
    random = np.random.default_rng(5)
    held_out, training = 10 * random.normal(size=rows), gap + 10 * random.normal(size=rows)
    return LogLikelihoods(name="log-density", training=training, held_out=held_out)


def evidence(
    images=None, labels=None, *, conditional: bool = True, count: int = 600, training: int = 2400, held_out: int = 600
) -> Evidence:
    """Make evidence; without images the samples are real rows."""
    of = labels_of(count) if labels is None else labels
    drawn = images_of(of, seed=1) if images is None else images
    samples = samples_of(drawn, of if conditional else None)
    unseen, seen = real(held_out, seed=2), real(training, seed=3)
    sheet = images_of(np.tile(np.arange(len(CLASSES)), 40), seed=4).reshape(40, len(CLASSES), SIDE, SIDE, 1)
    return Evidence(
        samples=samples, failed=0, held_out=unseen, training=seen, nearest=near(samples, unseen, seen),
        label_grid=label_grid_of(sheet) if conditional else None, classes=CLASSES, seed=7,
        log_likelihoods=log_likelihoods(),
    )  # fmt: skip


def with_samples(of: Evidence, samples: Samples) -> Evidence:
    """Replace the samples, and their nearest training rows."""
    return replace(of, samples=samples, nearest=near(samples, of.held_out, of.training))


def evaluate(of: Evidence, panels: Sequence[Panel]) -> tuple[dict[str, Metric], dict[Panel, PanelResult]]:
    """Evaluate panels, with the outputs of parts written to JSON and read back; JSON without NaN."""
    parts = parts_of(panels, of.samples.labels is not None)
    outputs = {each.name: json.loads(json.dumps(each.compute(of), allow_nan=False)) for each in parts}
    found = [evaluate_panel(panel, outputs, of) for panel in panels]
    return {each.name: each for metrics, _ in found for each in metrics}, {each.panel: each for _, each in found}
