"""Figures made of numbers: class shares, confusion, distances to training rows, a map of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.report.pictures import FigureData, read_classes, shown_classes

__all__ = ["class_histogram", "confusion", "distances", "feature_map"]

MOST_CLASSES = 50
"""Classes a confusion matrix has; of more only the most frequent confusions are kept."""

MOST_CONFUSIONS = 20
BINS = 40
INSIDE = 0.995
"""The share of distances that the bins span; those beyond are counted in the last one."""

MOST_POINTS = 1000
_MAP_KEY = 0x6D6170 << 64  # "map": the high half of the Philox key, the seed being the low one
_DIGITS = 5

Float64s = NDArray[np.float64]


def class_histogram(evidence: Evidence) -> FigureData:
    """How many samples and held-out rows the classifier reads as each class, and what the rows are labelled."""
    classes = len(evidence.classes)

    def count(values: NDArray[np.int64]) -> list[int]:
        return [int(n) for n in np.bincount(values, minlength=classes)]

    return {
        "generated": count(read_classes(evidence.samples.probabilities)),
        "real": count(read_classes(evidence.held_out.probabilities)),
        "real_labels": count(evidence.held_out.labels),
    }


def confusion(evidence: Evidence) -> FigureData:
    """Asked label against the one read: `counts[asked][read]`, None for many classes; and the commonest confusions."""
    classes, asked = len(evidence.classes), evidence.samples.labels
    if asked is None:
        return {"counts": None, "asked": [], "confusions": []}
    read = read_classes(evidence.samples.probabilities)
    counts = np.bincount(asked * classes + read, minlength=classes * classes).reshape(classes, classes)
    wrong = counts * (1 - np.eye(classes, dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [(int(i) // classes, int(i) % classes) for i in order if wrong.flat[i]]
    return {
        "counts": counts.tolist() if classes <= MOST_CLASSES else None,
        "asked": counts.sum(axis=1).tolist(),
        "confusions": [[first, second, int(counts[first, second])] for first, second in pairs],
    }


def distances(evidence: Evidence) -> FigureData:
    """How far samples and held-out rows are from their nearest training row, by space, in common bins."""
    spaces: dict[str, Any] = {}
    for space in sorted(evidence.nearest, reverse=True):  # pixels before features
        nearest = evidence.nearest[space]
        samples, held_out = nearest.sample_distances[:, 0], nearest.held_out_distances[:, 0]
        spaces[space] = _in_common_bins(samples[np.isfinite(samples)], held_out[np.isfinite(held_out)])
    return {"spaces": spaces}


def _in_common_bins(samples: Float64s, held_out: Float64s) -> dict[str, Any] | None:
    if not len(samples) or not len(held_out):
        return None
    both = np.concatenate([samples, held_out])
    low, high = float(both.min()), float(max(np.quantile(samples, INSIDE), np.quantile(held_out, INSIDE)))
    if high <= low:
        high = low + 1.0
    edges = np.linspace(low, high, BINS + 1)

    def count(values: Float64s) -> list[int]:
        return [int(n) for n in np.histogram(np.minimum(values, high), edges)[0]]

    return {
        "edges": [float(edge) for edge in edges],
        "generated": count(samples),
        "real": count(held_out),
        "generated_beyond": int((samples > high).sum()),
        "real_beyond": int((held_out > high).sum()),
        "generated_median": float(np.median(samples)),
        "real_median": float(np.median(held_out)),
    }


def feature_map(evidence: Evidence) -> FigureData:
    """Features on the two directions in which held-out rows vary most: up to 1000 points of each side, with classes."""
    real = evidence.held_out.features.astype(np.float64)
    centre = real.mean(axis=0)
    axes, shares = _principal_axes(real - centre)
    rng = np.random.Generator(np.random.Philox(key=_MAP_KEY + evidence.seed))
    _, classes = shown_classes(evidence)
    sides = (("real", real, evidence.held_out.labels), ("generated", evidence.samples.features, classes))
    drawn: FigureData = {"explained": shares}
    for side, features, labels in sides:
        chosen = np.sort(rng.permutation(len(features))[:MOST_POINTS])
        points = (features[chosen].astype(np.float64) - centre) @ axes
        drawn[side] = {
            "points": [[float(f"{x:.{_DIGITS}g}"), float(f"{y:.{_DIGITS}g}")] for x, y in points],
            "classes": [int(label) for label in labels[chosen]],
            "of": len(features),
        }
    return drawn


def _principal_axes(centred: Float64s) -> tuple[Float64s, list[float]]:
    """Two directions (d, 2), each with its largest entry positive, and the shares of the variance they hold."""
    dims = centred.shape[1]
    scatter = centred.T @ centred
    first = max(0, dims - 2)
    values, vectors = scipy.linalg.eigh(scatter, subset_by_index=[first, dims - 1])
    axes = np.zeros((dims, 2))
    axes[:, : vectors.shape[1]] = vectors[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    axes *= np.where(largest < 0, -1.0, 1.0)
    total = float(np.trace(scatter))
    shares = [max(0.0, float(value)) / total if total > 0 else 0.0 for value in values[::-1]]
    return axes, [*shares, 0.0][:2]
