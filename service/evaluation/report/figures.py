"""Figures of the report: charts, made of numbers, and galleries, made of images; all computed from the evidence.

JSON leaves, which `views` prepares for the page. Images are those of the lowest indices unless a figure shows a
ranking: none are selected by hand. They are stored as PNG at their own size, as single tiles or as sheets of tiles with
transparent gaps; pages scale them up.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel
from service.evaluation.statistics.birthday import closest_pairs as find_closest_pairs
from service.evaluation.statistics.copies import copy_ratios
from service.evaluation.statistics.precision_recall import K, Manifold, compare
from service.evaluation.statistics.rows import Float64s, Int64s

__all__ = ["FIGURES", "LARGEST_TILE", "Figure", "figures_of", "sheet", "tile"]

FigureData = dict[str, Any]
"""JSON: text, finite numbers, lists, and images as base64 of PNG."""

LARGEST_TILE = 64
"""Pixels of a tile's longer side, at most; larger images are averaged down."""

MOST_MATRIX_CLASSES = 50
"""Classes of a confusion matrix; of more only the most frequent confusions are kept."""

MOST_CLASSES = 50
"""Classes with a row of samples; of more only the first are shown, and the figure states it."""

MOST_LABELS = 12
"""Labels in the figure of one noise under every label."""

MOST_CONFUSIONS, MOST_POINTS = 20, 1000
SHOWN_PER_CLASS, SHOWN_RANKED, SHOWN_PAIRS, SHOWN_NOISES = 10, 8, 8, 6

_BINS = 40
_BINNED_SHARE = 0.995  # of the distances; those beyond are counted in the last bin
_MAP_KEY = 0x6D6170 << 64  # "map": the high half of the Philox key, the seed being the low one
_POINT_DIGITS = 5
_COMPRESSION = 9
_OPAQUE = 255


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: lower case with dashes.
        panel: the figure is shown when this panel was requested; None: always.
        compute: takes a few seconds at most; the same evidence gives the same JSON, to the last byte on one machine.
        restricted: it shows training rows, which only callers with a grant of their own may see.
    """

    name: str
    panel: Panel | None
    compute: Callable[[Evidence], FigureData]
    restricted: bool = False


# --- Charts -----------------------------------------------------------------------------------------------------------


def class_histogram(evidence: Evidence) -> FigureData:
    """Count samples and held-out rows by predicted class, and the rows by label."""

    def count(values: Int64s) -> list[int]:
        return [int(n) for n in np.bincount(values, minlength=len(evidence.classes))]

    return {
        "generated": count(evidence.samples.predicted),
        "real": count(evidence.held_out.predicted),
        "real_labels": count(evidence.held_out.labels),
    }


def confusion(evidence: Evidence) -> FigureData:
    """Count samples by requested label and predicted class, and list the most frequent confusions.

    `counts[requested][predicted]` is None for many classes.
    """
    classes, requested = len(evidence.classes), evidence.samples.labels
    if requested is None:
        return {"counts": None, "asked": [], "confusions": []}
    predicted = evidence.samples.predicted
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
    _, classes = _shown_classes(evidence)
    sides = (("real", real, evidence.held_out.labels), ("generated", evidence.samples.features, classes))
    data: FigureData = {"explained": shares}
    for side, features, labels in sides:
        chosen = np.sort(random.permutation(len(features))[:MOST_POINTS])
        points = (features[chosen].astype(np.float64) - centre) @ axes
        data[side] = {
            "points": [[float(f"{x:.{_POINT_DIGITS}g}"), float(f"{y:.{_POINT_DIGITS}g}")] for x, y in points],
            "classes": [int(label) for label in labels[chosen]],
            "of": len(features),
        }
    return data


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
    values, vectors = np.linalg.eigh(scatter)  # ascending; not scipy's: it holds the interpreter lock
    values, vectors = values[-2:], vectors[:, -2:]
    axes = np.zeros((dims, 2))
    axes[:, : vectors.shape[1]] = vectors[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    axes *= np.where(largest < 0, -1.0, 1.0)
    total = float(np.trace(scatter))
    shares = [max(0.0, float(value)) / total if total > 0 else 0.0 for value in values[::-1]]
    return axes, [*shares, 0.0][:2]


# --- Galleries --------------------------------------------------------------------------------------------------------


def samples_by_class(evidence: Evidence) -> FigureData:
    """Show up to ten samples of each class, by requested label, else by predicted class."""
    by, classes = _shown_classes(evidence)
    rows: list[dict[str, Any]] = []
    for class_id in range(min(len(evidence.classes), MOST_CLASSES)):
        members = np.flatnonzero(classes == class_id)
        chosen = members[:SHOWN_PER_CLASS]
        rows.append(
            {
                "class": class_id,
                "count": len(members),
                "indices": [int(index) for index in evidence.samples.indices[chosen]],
                "sheet": sheet(evidence.samples.images[chosen], SHOWN_PER_CLASS) if len(chosen) else None,
            }
        )
    return {"by": by, "rows": rows, "classes_left_out": max(0, len(evidence.classes) - MOST_CLASSES)}


def best_and_worst(evidence: Evidence) -> FigureData:
    """Show the samples of highest and of lowest realism relative to the held-out rows.

    Source: Kynkäänniemi et al., "Improved precision and recall metric", 2019, section 3 (realism score).
    """
    features = evidence.samples.features
    try:
        # Realism depends on the balls of real rows alone: those of samples are not measured.
        n = len(features)
        samples = Manifold(features=features, squared_radii=np.zeros(n), k=K, numbers=np.arange(n))
        realism = compare(samples, Manifold.of(evidence.held_out.features)).realism
    except ValueError as error:  # too few real rows, or all identical
        return {"best": [], "worst": [], "note": str(error)}
    order = np.argsort(-realism, kind="stable")

    def entries(chosen: Iterable[int]) -> list[dict[str, Any]]:
        return [_sample(evidence, i) | {"realism": _finite(realism[i])} for i in chosen]

    return {"best": entries(order[:SHOWN_RANKED]), "worst": entries(order[::-1][:SHOWN_RANKED]), "note": ""}


def closest_pairs(evidence: Evidence) -> FigureData:
    """Show the pairs of samples with the smallest feature distances, and the smallest distance of held-out rows."""
    real = find_closest_pairs(evidence.held_out.features, 1)
    return {
        "pairs": [
            {"distance": _finite(distance), "samples": [_sample(evidence, first), _sample(evidence, second)]}
            for first, second, distance in find_closest_pairs(evidence.samples.features, SHOWN_PAIRS)
        ],
        "samples": len(evidence.samples),
        "held_out_rows": len(evidence.held_out),
        "held_out_distance": _finite(real[0][2]) if real else None,
    }


def same_noise(evidence: Evidence) -> FigureData:
    """Show a few noises under every label, a row a noise, with the predicted classes; -1 where prediction failed."""
    grid = evidence.label_grid
    if grid is None or not grid.images.size:
        return {"rows": 0, "classes": [], "classes_left_out": 0, "predicted": [], "sheet": None}
    rows, columns = min(SHOWN_NOISES, len(grid.images)), min(MOST_LABELS, grid.images.shape[1])
    images = grid.images[:rows, :columns]
    return {
        "rows": rows,
        "classes": list(range(columns)),
        "classes_left_out": grid.images.shape[1] - columns,
        "predicted": grid.predicted[:rows, :columns].tolist(),
        "sheet": sheet(images.reshape(rows * columns, *images.shape[2:]), columns),  # (a, k, H, W, C) -> (a k, H, W, C)
    }


def nearest_training_rows(evidence: Evidence) -> FigureData:
    """Show the samples with the lowest d1 / mean(d2..d10) in pixels, each with its nearest training row."""
    nearest, training = evidence.nearest["pixels"], evidence.training
    ratios = copy_ratios(nearest.sample_distances)
    order = np.argsort(np.where(np.isnan(ratios), np.inf, ratios), kind="stable")[:SHOWN_PAIRS]
    return {
        "pairs": [
            {
                "sample": _sample(evidence, position),
                "training_row": int(training.numbers[row]),
                "training_class": int(training.labels[row]),
                "training_tile": tile(training.images[row]),
                "ratio": _finite(ratios[position]),
                "distance": _finite(nearest.sample_distances[position, 0]),
            }
            for position, row in zip(order, nearest.sample_rows[order], strict=True)
            if row >= 0
        ]
    }


def _sample(evidence: Evidence, position: int) -> dict[str, Any]:
    _, classes = _shown_classes(evidence)
    return {
        "index": int(evidence.samples.indices[position]),
        "class": int(classes[position]),
        "tile": tile(evidence.samples.images[position]),
    }


def _finite(value: float) -> float | None:
    """Return the number, or None where JSON cannot hold it."""
    return float(value) if math.isfinite(value) else None


def _shown_classes(evidence: Evidence) -> tuple[str, Int64s]:
    """Return the classes by which samples are shown: ("asked", requested labels) or ("read", predicted classes)."""
    if evidence.samples.labels is not None:
        return "asked", evidence.samples.labels
    return "read", evidence.samples.predicted


# --- Images as PNG ----------------------------------------------------------------------------------------------------


def tile(image: NDArray[np.uint8]) -> dict[str, Any]:
    """Encode one image.

    Args:
        image: (H, W, C) uint8; of channels that are neither grey nor RGB the first is shown.

    Returns:
        png: base64. size: [height, width] in pixels.
    """
    pixels = _shrink(image)
    return {"png": _png(pixels), "size": [pixels.shape[0], pixels.shape[1]]}


def sheet(images: NDArray[np.uint8], columns: int) -> dict[str, Any]:
    """Encode images in rows of `columns`, filled from the left; remaining cells are transparent.

    Args:
        images: (n, H, W, C) uint8, n >= 1.
        columns: tiles in a row.

    Returns:
        png: base64, grey or RGB with alpha. columns, rows: of tiles. size: [height, width] of a tile. gap: pixels
        between tiles; there is none around them.
    """
    tiles = [_shrink(image) for image in images]
    height, width, channels = tiles[0].shape
    rows, gap = -(-len(tiles) // columns), max(1, width // 14)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels + 1), np.uint8)
    for position, pixels in enumerate(tiles):
        top, left = (position // columns) * (height + gap), (position % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :channels] = pixels
        canvas[top : top + height, left : left + width, channels] = _OPAQUE
    return {"png": _png(canvas), "columns": columns, "rows": rows, "size": [height, width], "gap": gap}


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, C) -> (h, w, 1 or 3), at most LARGEST_TILE pixels a side."""
    if image.shape[2] != 3:
        image = image[..., :1]
    height, width, channels = image.shape
    if max(height, width) <= LARGEST_TILE:
        return image
    factor = LARGEST_TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = np.asarray(_to_pillow(image).resize(size, Image.Resampling.BOX), np.uint8)
    return smaller.reshape(size[1], size[0], channels)  # (h, w) or (h, w, 3) -> (h, w, C)


def _to_pillow(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _png(pixels: NDArray[np.uint8]) -> str:
    """Encode as base64 of a PNG: 1 channel grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha."""
    stream = io.BytesIO()
    _to_pillow(pixels).save(stream, format="PNG", compress_level=_COMPRESSION)
    return base64.b64encode(stream.getvalue()).decode("ascii")


# --- All of them ------------------------------------------------------------------------------------------------------


FIGURES: tuple[Figure, ...] = (
    Figure(name="samples-by-class", panel=None, compute=samples_by_class),
    Figure(name="feature-map", panel=None, compute=feature_map),
    Figure(name="best-and-worst", panel=Panel.REALISM, compute=best_and_worst),
    Figure(name="closest-pairs", panel=Panel.DIVERSITY, compute=closest_pairs),
    Figure(name="class-histogram", panel=Panel.DIVERSITY, compute=class_histogram),
    Figure(name="distances", panel=Panel.MEMORISATION, compute=distances),
    Figure(name="nearest-training-rows", panel=Panel.MEMORISATION, compute=nearest_training_rows, restricted=True),
    Figure(name="confusion", panel=Panel.LABEL_FIDELITY, compute=confusion),
    Figure(name="same-noise", panel=Panel.LABEL_FIDELITY, compute=same_noise),
)


def figures_of(panels: Collection[Panel]) -> tuple[Figure, ...]:
    """Return the figures of a report with these panels."""
    return tuple(figure for figure in FIGURES if figure.panel is None or figure.panel in panels)
