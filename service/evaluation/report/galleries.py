"""Figures made of pictures: by class, best and worst, closest pairs, one noise under every label, copies.

Pictures are those of the lowest indices unless a figure is about a ranking: nobody has picked them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.report.pictures import FigureData, finite, sheet, shown_classes, tile
from service.evaluation.statistics import birthday, copies, precision_recall

__all__ = ["best_and_worst", "closest_pairs", "nearest_training_rows", "same_noise", "samples_by_class"]

PER_CLASS = 10
MOST_CLASSES = 50
"""Classes with a row of samples; of more only the first are shown, and the figure says so."""

RANKED = 8
PAIRS = 8
NOISES = 6
MOST_COLUMNS = 12
"""Labels in the figure of one noise under every label."""


def samples_by_class(evidence: Evidence) -> FigureData:
    """Up to ten samples of each class, by the label asked for, else by the classifier's."""
    by, classes = shown_classes(evidence)
    rows: list[dict[str, Any]] = []
    for class_id in range(min(len(evidence.classes), MOST_CLASSES)):
        members = np.flatnonzero(classes == class_id)
        chosen = members[:PER_CLASS]
        rows.append(
            {
                "class": class_id,
                "count": len(members),
                "indices": _indices(evidence, chosen),
                "sheet": sheet(evidence.samples.images[chosen], PER_CLASS) if len(chosen) else None,
            }
        )
    return {"by": by, "rows": rows, "classes_left_out": max(0, len(evidence.classes) - MOST_CLASSES)}


def best_and_worst(evidence: Evidence) -> FigureData:
    """The samples of highest and of lowest realism against the held-out rows.

    Source: Kynkäänniemi et al., "Improved precision and recall metric", 2019, section 3 (realism score).
    """
    try:
        real = precision_recall.Manifold.of(evidence.held_out.features)
        realism = precision_recall.compare(_without_balls(evidence.samples.features), real).realism
    except ValueError as error:  # too few real rows, or all alike
        return {"best": [], "worst": [], "note": str(error)}
    order = np.argsort(-realism, kind="stable")
    most = min(RANKED, len(order))

    def entries(chosen: Any) -> list[dict[str, Any]]:
        return [_sample(evidence, i) | {"realism": finite(realism[i])} for i in chosen]

    return {"best": entries(order[:most]), "worst": entries(order[::-1][:most]), "note": ""}


def closest_pairs(evidence: Evidence) -> FigureData:
    """The pairs of samples that are nearest to each other in features, beside the nearest pair of held-out rows."""
    pairs = birthday.closest_pairs(evidence.samples.features, PAIRS)
    real = birthday.closest_pairs(evidence.held_out.features, 1)
    return {
        "pairs": [
            {"distance": finite(distance), "samples": [_sample(evidence, first), _sample(evidence, second)]}
            for first, second, distance in pairs
        ],
        "samples": len(evidence.samples),
        "held_out_rows": len(evidence.held_out),
        "held_out_distance": finite(real[0][2]) if real else None,
    }


def same_noise(evidence: Evidence) -> FigureData:
    """A few addresses under every label, a row an address; `predicted` is what is read, -1 where that failed."""
    answers = evidence.label_grid
    if answers is None or not answers.images.size:
        return {"rows": 0, "classes": [], "classes_left_out": 0, "predicted": [], "sheet": None}
    rows, columns = min(NOISES, len(answers.images)), min(MOST_COLUMNS, answers.images.shape[1])
    images = answers.images[:rows, :columns]
    return {
        "rows": rows,
        "classes": list(range(columns)),
        "classes_left_out": answers.images.shape[1] - columns,
        "predicted": answers.predicted[:rows, :columns].tolist(),
        "sheet": sheet(images.reshape(rows * columns, *images.shape[2:]), columns),  # (a, k, H, W, C) -> (a k, H, W, C)
    }


def nearest_training_rows(evidence: Evidence) -> FigureData:
    """The samples most alike to a single training row, each beside that row: lowest d1 / mean(d2..d10) in pixels."""
    nearest = evidence.nearest["pixels"]
    ratios = copies.copy_ratios(nearest.sample_distances)
    order = np.argsort(np.where(np.isnan(ratios), np.inf, ratios), kind="stable")[:PAIRS]
    pairs = [_beside_row(evidence, int(i), int(nearest.sample_rows[i])) for i in order if nearest.sample_rows[i] >= 0]
    for pair, position in zip(pairs, order, strict=False):
        pair["ratio"] = finite(ratios[position])
        pair["distance"] = finite(nearest.sample_distances[position, 0])
    return {"pairs": pairs}


def _without_balls(features: NDArray[np.float32]) -> precision_recall.Manifold:
    """Samples as `compare` takes them; realism rests on the balls of real rows alone."""
    return precision_recall.Manifold(features=features, squared_radii=np.zeros(len(features)), k=precision_recall.K)


def _beside_row(evidence: Evidence, position: int, row: int) -> dict[str, Any]:
    training = evidence.training
    return {
        "sample": _sample(evidence, position),
        "training_row": row,
        "training_class": int(training.labels[row]),
        "training_tile": tile(training.images[row]),
    }


def _sample(evidence: Evidence, position: int) -> dict[str, Any]:
    _, classes = shown_classes(evidence)
    samples = evidence.samples
    return {
        "index": int(samples.indices[position]),
        "class": int(classes[position]),
        "tile": tile(samples.images[position]),
    }


def _indices(evidence: Evidence, positions: Any) -> list[int]:
    return [int(index) for index in evidence.samples.indices[positions]]
