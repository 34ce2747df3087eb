"""Figures made of numbers: class histogram, confusion matrix, distances to training rows, a map of the features.

The evidence enters, JSON leaves: text, finite numbers and lists, which `views` prepares for the page.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.statistics.rows import Float64s, Int64s

__all__ = ["FigureData", "class_histogram", "confusion", "distances", "feature_map", "finite", "shown_classes"]

FigureData = dict[str, Any]
"""JSON: text, finite numbers, lists, and images as base64 of PNG."""

MOST_MATRIX_CLASSES = 50
"""Classes of a confusion matrix; of more only the most frequent confusions are kept."""

MOST_CONFUSIONS = 20
MOST_POINTS = 1000

_BINS = 40
_BINNED_SHARE = 0.995  # of the distances; those beyond are counted in the last bin
_MAP_KEY = 0x6D6170 << 64  # "map": the high half of the Philox key, the seed being the low one
_DIGITS = 5


def finite(value: float) -> float | None:
    """Return the number, or None where JSON cannot hold it."""
    return float(value) if math.isfinite(value) else None


def shown_classes(evidence: Evidence) -> tuple[str, Int64s]:
    """Return the classes by which samples are shown: ("asked", requested labels) or ("read", predicted classes)."""
    if evidence.samples.labels is not None:
        return "asked", evidence.samples.labels
    return "read", _predicted_classes(evidence.samples.probabilities)


def class_histogram(evidence: Evidence) -> FigureData:
    """Count samples and held-out rows by predicted class, and the rows by label."""

    def count(values: Int64s) -> list[int]:
        return [int(n) for n in np.bincount(values, minlength=len(evidence.classes))]

    return {
        "generated": count(_predicted_classes(evidence.samples.probabilities)),
        "real": count(_predicted_classes(evidence.held_out.probabilities)),
        "real_labels": count(evidence.held_out.labels),
    }


def confusion(evidence: Evidence) -> FigureData:
    """Count samples by requested label and predicted class, and list the most frequent confusions.

    `counts[requested][predicted]` is None for many classes.
    """
    classes, requested = len(evidence.classes), evidence.samples.labels
    if requested is None:
        return {"counts": None, "asked": [], "confusions": []}
    predicted = _predicted_classes(evidence.samples.probabilities)
    counts = np.bincount(requested * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    wrong = counts * (1 - np.eye(classes, dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [(int(i) // classes, int(i) % classes) for i in order if wrong.flat[i]]
    return {
        "counts": counts.tolist() if classes <= MOST_MATRIX_CLASSES else None,
        "asked": counts.sum(axis=1).tolist(),
        "confusions": [[first, second, int(counts[first, second])] for first, second in pairs],
    }


def distances(evidence: Evidence) -> FigureData:
    """Bin the distances of samples and held-out rows to their nearest training row, by space."""
    spaces: dict[str, Any] = {}
    for space in sorted(evidence.nearest, reverse=True):  # pixels before features
        nearest = evidence.nearest[space]
        samples, held_out = nearest.sample_distances[:, 0], nearest.held_out_distances[:, 0]
        spaces[space] = _bin_distances(samples[np.isfinite(samples)], held_out[np.isfinite(held_out)])
    return {"spaces": spaces}


def feature_map(evidence: Evidence) -> FigureData:
    """Project features on the first two principal components of held-out rows: up to 1000 points each, with classes."""
    real = evidence.held_out.features.astype(np.float64)
    centre = real.mean(axis=0)
    axes, shares = _principal_axes(real - centre)
    random = np.random.Generator(np.random.Philox(key=_MAP_KEY + evidence.seed))
    _, classes = shown_classes(evidence)
    sides = (("real", real, evidence.held_out.labels), ("generated", evidence.samples.features, classes))
    data: FigureData = {"explained": shares}
    for side, features, labels in sides:
        chosen = np.sort(random.permutation(len(features))[:MOST_POINTS])
        points = (features[chosen].astype(np.float64) - centre) @ axes
        data[side] = {
            "points": [[float(f"{x:.{_DIGITS}g}"), float(f"{y:.{_DIGITS}g}")] for x, y in points],
            "classes": [int(label) for label in labels[chosen]],
            "of": len(features),
        }
    return data


def _predicted_classes(probabilities: NDArray[np.float32]) -> Int64s:
    """(n, classes) -> (n,) int64."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def _bin_distances(samples: Float64s, held_out: Float64s) -> dict[str, Any] | None:
    if not len(samples) or not len(held_out):
        return None
    low = float(np.concatenate([samples, held_out]).min())
    high = float(max(np.quantile(samples, _BINNED_SHARE), np.quantile(held_out, _BINNED_SHARE)))
    if high <= low:
        high = low + 1.0
    edges = np.linspace(low, high, _BINS + 1)
    data: dict[str, Any] = {"edges": [float(edge) for edge in edges]}
    for side, values in (("generated", samples), ("real", held_out)):
        data[side] = [int(n) for n in np.histogram(np.minimum(values, high), edges)[0]]
        data[f"{side}_beyond"] = int((values > high).sum())
        data[f"{side}_median"] = float(np.median(values))
    return data


def _principal_axes(centred: Float64s) -> tuple[Float64s, list[float]]:
    """Compute two directions (d, 2), each with its largest entry positive, and their shares of the variance."""
    dims = centred.shape[1]
    scatter = centred.T @ centred
    values, vectors = scipy.linalg.eigh(scatter, subset_by_index=[max(0, dims - 2), dims - 1])
    axes = np.zeros((dims, 2))
    axes[:, : vectors.shape[1]] = vectors[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    axes *= np.where(largest < 0, -1.0, 1.0)
    total = float(np.trace(scatter))
    shares = [max(0.0, float(value)) / total if total > 0 else 0.0 for value in values[::-1]]
    return axes, [*shares, 0.0][:2]
