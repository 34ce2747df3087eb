"""Evaluation of a generator that is a torch module: the computation of the panels without a server.

A module and a data set enter; evidence as a runner builds it, metrics and verdicts leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.address import Addresses
from handlers.execution.pixels import floats_to_uint8
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.models.classifier import ConvClassifier
from handlers.recipes.data.load import Split, TrainingData
from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, Nearest, RealRows, Samples
from service.evaluation.panels.registry import evaluate_panel, parts_of
from service.evaluation.pipeline.sampling import label_samples
from service.evaluation.results import Metric, Panel, PanelResult
from service.evaluation.statistics.distances import nearest

__all__ = ["ModuleEvaluation", "build_evidence", "evaluate"]

_UNIT = (0.0, 1.0)
_CHUNK = 500
_GRID = 100  # addresses that are drawn with every label


@dataclass(frozen=True, kw_only=True)
class ModuleEvaluation:
    """All metrics by name, and all verdicts by panel."""

    metrics: dict[str, Metric]
    panels: dict[Panel, PanelResult]

    def value(self, name: str) -> float:
        """Look up the value of a metric; NaN when it has none."""
        found = self.metrics[name].value
        return float("nan") if found is None else found


def evaluate(evidence: Evidence, panels: Sequence[Panel] = tuple(Panel)) -> ModuleEvaluation:
    """Evaluate the panels of a conditional generator.

    Args:
        evidence: of `build_evidence`.
        panels: panels to evaluate, in the order of the report.
    """
    outputs = {part.name: part.compute(evidence) for part in parts_of(panels, True)}
    results = [evaluate_panel(panel, outputs, evidence) for panel in panels]
    return ModuleEvaluation(
        metrics={metric.name: metric for metrics, _ in results for metric in metrics},
        panels={result.panel: result for _, result in results},
    )


def build_evidence(
    sampler: Sampler, data: TrainingData, classifier: ConvClassifier, *, count: int, seed: int
) -> Evidence:
    """Draw samples and compute features, as a runner does.

    Args:
        sampler: a conditional generator of floats in [0, 1].
        data: training rows, and test rows as held-out rows.
        classifier: computes features and probabilities.
        count: samples.
        seed: of the samples.
    """
    labels = label_samples(data.test.labels.numpy().astype(np.uint32), len(data.classes), count).astype(np.int64)
    images = _draw(sampler, seed, np.arange(count, dtype=np.uint64), labels)
    features, probabilities = _read(classifier, images)
    samples = Samples(
        indices=np.arange(count, dtype=np.uint64), images=images, labels=labels, features=features,
        probabilities=probabilities,
    )  # fmt: skip
    training, held_out = (_real(classifier, split) for split in (data.train, data.test))
    return Evidence(
        samples=samples,
        failed=0,
        held_out=held_out,
        training=training,
        nearest={
            "pixels": _nearest(images, held_out.images, training.images),
            "features": _nearest(features, held_out.features, training.features),
        },
        label_grid=_label_grid(sampler, classifier, seed, count, len(data.classes)),
        classes=data.classes,
        seed=seed,
    )


@torch.inference_mode()
def _draw(sampler: Sampler, seed: int, indices: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw samples (n, H, W, C) as clients receive them."""
    parts = []
    for start in range(0, len(indices), _CHUNK):
        some = indices[start : start + _CHUNK]
        noise = Noise(addresses=Addresses(seeds=np.full(len(some), seed, np.uint64), indices=some),
                      device=torch.device("cpu"))  # fmt: skip
        drawn = sampler.sample(noise, torch.from_numpy(labels[start : start + _CHUNK]), Draw(), Deadline())
        parts.append(floats_to_uint8(drawn.permute(0, 2, 3, 1).contiguous().numpy(), _UNIT))
    return np.concatenate(parts)


@torch.inference_mode()
def _read(classifier: ConvClassifier, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute features and probabilities."""
    features, probabilities = [], []
    for start in range(0, len(images), _CHUNK):
        floats = torch.from_numpy(images[start : start + _CHUNK]).permute(0, 3, 1, 2).float() / 255
        embedded = classifier.embed(floats)
        features.append(embedded.numpy())
        probabilities.append(torch.softmax(classifier.head(embedded), dim=1).numpy())
    return np.concatenate(features), np.concatenate(probabilities)


def _real(classifier: ConvClassifier, split: Split) -> RealRows:
    images = _to_uint8(split.images)
    features, probabilities = _read(classifier, images)
    return RealRows(
        images=images, labels=split.labels.numpy().astype(np.int64), features=features, probabilities=probabilities,
        numbers=np.arange(len(images)),
    )  # fmt: skip


def _to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Convert (N, C, H, W) in [0, 1] to (N, H, W, C) bytes."""
    scaled: NDArray[np.uint8] = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return scaled


def _nearest(
    samples: NDArray[np.uint8] | NDArray[np.float32],
    held_out: NDArray[np.uint8] | NDArray[np.float32],
    training: NDArray[np.uint8] | NDArray[np.float32],
) -> Nearest:
    distances, rows = nearest(samples, training, NEIGHBOURS)
    held_out_distances, _ = nearest(held_out, training, NEIGHBOURS)
    return Nearest(sample_distances=distances, sample_rows=rows[:, 0], held_out_distances=held_out_distances)


def _label_grid(sampler: Sampler, classifier: ConvClassifier, seed: int, first: int, classes: int) -> LabelGrid:
    """Draw the same noise with every label."""
    indices = np.repeat(np.arange(first, first + _GRID, dtype=np.uint64), classes)
    images = _draw(sampler, seed, indices, np.tile(np.arange(classes, dtype=np.int64), _GRID))
    _, probabilities = _read(classifier, images)
    return LabelGrid(
        images=images.reshape(_GRID, classes, *images.shape[1:]),
        predicted=probabilities.argmax(axis=1).reshape(_GRID, classes).astype(np.int64),
    )
