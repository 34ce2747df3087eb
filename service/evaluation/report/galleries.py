"""Figures made of images: by class, best and worst, closest pairs, one noise under every label, copies.

Images are those of the lowest indices unless a figure shows a ranking: none are selected by hand. They are stored as
PNG at their own size, as single tiles or as sheets of tiles with transparent gaps; pages scale them up.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.evaluation.evidence import Evidence
from service.evaluation.report.charts import FigureData, finite, shown_classes
from service.evaluation.statistics.birthday import closest_pairs as find_closest_pairs
from service.evaluation.statistics.copies import copy_ratios
from service.evaluation.statistics.precision_recall import K, Manifold, compare

__all__ = [
    "LARGEST_TILE",
    "best_and_worst",
    "closest_pairs",
    "nearest_training_rows",
    "same_noise",
    "samples_by_class",
    "sheet",
    "tile",
]

LARGEST_TILE = 64
"""Pixels of a tile's longer side, at most; larger images are averaged down."""

SHOWN_PER_CLASS = 10
MOST_CLASSES = 50
"""Classes with a row of samples; of more only the first are shown, and the figure states it."""

SHOWN_RANKED = 8
SHOWN_PAIRS = 8
SHOWN_NOISES = 6
MOST_LABELS = 12
"""Labels in the figure of one noise under every label."""

_COMPRESSION = 9
_OPAQUE = 255


def samples_by_class(evidence: Evidence) -> FigureData:
    """Show up to ten samples of each class, by requested label, else by predicted class."""
    by, classes = shown_classes(evidence)
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
        return [_sample(evidence, i) | {"realism": finite(realism[i])} for i in chosen]

    return {"best": entries(order[:SHOWN_RANKED]), "worst": entries(order[::-1][:SHOWN_RANKED]), "note": ""}


def closest_pairs(evidence: Evidence) -> FigureData:
    """Show the pairs of samples with the smallest feature distances, and the smallest distance of held-out rows."""
    real = find_closest_pairs(evidence.held_out.features, 1)
    return {
        "pairs": [
            {"distance": finite(distance), "samples": [_sample(evidence, first), _sample(evidence, second)]}
            for first, second, distance in find_closest_pairs(evidence.samples.features, SHOWN_PAIRS)
        ],
        "samples": len(evidence.samples),
        "held_out_rows": len(evidence.held_out),
        "held_out_distance": finite(real[0][2]) if real else None,
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
                "training_row": int(row),
                "training_class": int(training.labels[row]),
                "training_tile": tile(training.images[row]),
                "ratio": finite(ratios[position]),
                "distance": finite(nearest.sample_distances[position, 0]),
            }
            for position, row in zip(order, nearest.sample_rows[order], strict=True)
            if row >= 0
        ]
    }


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


def _sample(evidence: Evidence, position: int) -> dict[str, Any]:
    _, classes = shown_classes(evidence)
    return {
        "index": int(evidence.samples.indices[position]),
        "class": int(classes[position]),
        "tile": tile(evidence.samples.images[position]),
    }


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
