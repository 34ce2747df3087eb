"""Faults injected into a generator without faults, with the panels that must detect each.

The generator without faults returns real rows that are not in the training rows of the evaluation, so its results are
those of real data. A fault changes only images or labels; features and probabilities are computed again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, Nearest, RealRows, Samples
from service.evaluation.panels.parts import JSON
from service.evaluation.panels.registry import evaluate_panel, parts_of
from service.evaluation.results import Metric, Panel, PanelResult
from service.evaluation.statistics.distances import nearest

__all__ = [
    "Fault",
    "LabelledImages",
    "Reader",
    "Source",
    "build_evidence",
    "evaluate",
    "faults",
    "nearest_rows",
    "real_rows",
]

Reader = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(n, H, W, C) uint8 images to (n, d) features and (n, classes) probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Samples of a generator: (n, H, W, C) uint8 images, and their requested labels, (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The inputs of a fault.

    Attributes:
        drawn: samples of the generator without faults.
        pool: more of them.
        training: training rows of the evaluation.
        read: computes features and probabilities, as workers do.
        random: seeded alike for every fault.
    """

    drawn: LabelledImages
    pool: LabelledImages
    training: RealRows
    read: Reader
    random: np.random.Generator


Injection = Callable[[Source], LabelledImages]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, its description, and the panels that must detect it."""

    name: str
    description: str
    fires: frozenset[Panel]
    inject: Injection


def real_rows(images: NDArray[np.uint8], labels: NDArray[np.int64], read: Reader) -> RealRows:
    """Compute features and probabilities of real rows."""
    features, probabilities = read(images)
    return RealRows(
        images=images, labels=labels, features=features, probabilities=probabilities, numbers=np.arange(len(images))
    )


def nearest_rows(
    images: NDArray[np.uint8], features: NDArray[np.float32], training: RealRows
) -> dict[str, tuple[Any, Any]]:
    """Find the nearest training rows: distances and indices, by space."""
    spaces = {"pixels": (images, training.images), "features": (features, training.features)}
    return {space: nearest(queries, rows, NEIGHBOURS) for space, (queries, rows) in spaces.items()}


def build_evidence(
    drawn: LabelledImages, label_grid: NDArray[np.uint8], training: RealRows, held_out: RealRows, read: Reader,
    classes: tuple[str, ...], held_out_nearest: Mapping[str, NDArray[np.float64]], *, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Compute the evidence of all panels.

    Args:
        drawn: samples.
        label_grid: (addresses, classes, H, W, C) uint8: the same noise with every label.
        training: training rows.
        held_out: held-out real rows.
        read: computes features and probabilities.
        classes: names.
        held_out_nearest: by space, (m, 10) distances from held-out rows to training rows.
        seed: of the evaluation.
    """
    features, probabilities = read(drawn.images)
    samples = Samples(
        indices=np.arange(len(drawn.images), dtype=np.uint64), images=drawn.images, labels=drawn.labels,
        features=features, probabilities=probabilities,
    )  # fmt: skip
    found = {
        space: Nearest(sample_distances=far, sample_rows=rows[:, 0], held_out_distances=held_out_nearest[space])
        for space, (far, rows) in nearest_rows(samples.images, samples.features, training).items()
    }
    flat = label_grid.reshape(-1, *label_grid.shape[2:])
    predicted = np.argmax(read(flat)[1], axis=1).reshape(label_grid.shape[:2])
    return Evidence(
        samples=samples, failed=0, held_out=held_out, training=training, nearest=found,
        label_grid=LabelGrid(images=label_grid, predicted=predicted), classes=classes, seed=seed,
    )  # fmt: skip


def evaluate(evidence: Evidence, known: dict[tuple[object, ...], JSON]) -> tuple[list[Metric], list[PanelResult]]:
    """Compute the metrics and verdicts of all panels.

    Args:
        evidence: of a conditional model.
        known: results of draws of training rows, reused by calls with the same real rows.
    """
    outputs: dict[str, JSON] = {}
    counts = tuple(np.bincount(evidence.samples.labels, minlength=len(evidence.classes)))  # type: ignore[arg-type]
    for part in parts_of(tuple(Panel), conditional=True):
        key = (part.name, evidence.seed, counts)
        if ".real." not in part.name and not part.name.endswith(".rate"):
            outputs[part.name] = part.compute(evidence)
        else:
            outputs[part.name] = known[key] if key in known else known.setdefault(key, part.compute(evidence))
    found = [evaluate_panel(panel, outputs, evidence) for panel in Panel]
    return [metric for metrics, _ in found for metric in metrics], [result for _, result in found]


def _none(source: Source) -> LabelledImages:
    return source.drawn


def _copy(deviation: float) -> Injection:
    """Replace 5 % of the samples by training rows of their class with Gaussian noise."""

    def inject(source: Source) -> LabelledImages:
        drawn, random = source.drawn, source.random
        images = drawn.images.copy()
        for row in random.choice(len(images), len(images) // 20, replace=False):
            same = np.flatnonzero(source.training.labels == drawn.labels[row])
            copied = source.training.images[random.choice(same)].astype(np.float64)
            images[row] = _to_pixels(copied + random.normal(0, deviation, copied.shape) if deviation else copied)
        return replace(drawn, images=images)

    return inject


def _collapse(classes: tuple[int, ...], prototypes: int) -> Injection:
    """Replace the samples of some classes, or of all, by few prototypes of their class with small noise."""

    def inject(source: Source) -> LabelledImages:
        drawn, random = source.drawn, source.random
        images = drawn.images.copy()
        collapsed = classes or tuple(np.unique(drawn.labels))
        for each in collapsed:
            own = np.flatnonzero(drawn.labels == each)
            few = random.choice(own, max(1, prototypes // len(collapsed)), replace=False)
            copied = drawn.images[random.choice(few, len(own))].astype(np.float64)
            images[own] = _to_pixels(copied + random.normal(0, 1, copied.shape))
        return replace(drawn, images=images)

    return inject


def _shrink(source: Source) -> LabelledImages:
    """Select the fifth of the pool that is nearest to the mean of its class in features, each row once."""
    pool = source.pool
    features = source.read(pool.images)[0].astype(np.float64)
    kept = []
    for each in np.unique(pool.labels):
        own = np.flatnonzero(pool.labels == each)
        away = np.linalg.norm(features[own] - features[own].mean(axis=0), axis=1)
        kept.append(own[np.argsort(away, kind="stable")[: len(own) // 5]])
    rows = source.random.permutation(np.concatenate(kept))[: len(source.drawn.labels)]
    return LabelledImages(images=pool.images[rows], labels=pool.labels[rows])


def _shuffle_labels(source: Source) -> LabelledImages:
    """Permute 5 % of the labels."""
    labels = source.drawn.labels.copy()
    moved = source.random.choice(len(labels), len(labels) // 20, replace=False)
    labels[moved] = labels[source.random.permutation(moved)]
    return replace(source.drawn, labels=labels)


def _blur(source: Source) -> LabelledImages:
    blurred = ndimage.gaussian_filter(source.drawn.images.astype(np.float64), (0, 1, 1, 0))
    return replace(source.drawn, images=_to_pixels(blurred))


def _add_noise(source: Source) -> LabelledImages:
    images = source.drawn.images
    return replace(source.drawn, images=_to_pixels(images + source.random.normal(0, 30, images.shape)))


def _to_pixels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _fault(name: str, description: str, inject: Injection, *fires: Panel) -> Fault:
    return Fault(name=name, description=description, fires=frozenset(fires), inject=inject)


def faults(*, prototypes: int = 200, collapsed: int = 3) -> tuple[Fault, ...]:
    """List all faults.

    Args:
        prototypes: number of pictures of a collapsed generator.
        collapsed: class with only a tenth as many.
    """
    return (
        _fault("none", "real rows as they are", _none),
        _fault("copies", "5 % of the samples are training rows", _copy(0), Panel.MEMORISATION),
        _fault("noisy copies", "5 % are training rows with noise of deviation 8", _copy(8), Panel.MEMORISATION),
        _fault("collapse", f"{prototypes} pictures again and again, with noise of deviation 1",
               _collapse((), prototypes), Panel.DIVERSITY),
        _fault("collapse of one class", f"{prototypes // 10} pictures again and again in one class",
               _collapse((collapsed,), prototypes // 10), Panel.DIVERSITY),
        _fault("shrinkage", "only the fifth of rows nearest to the mean of their class, in features", _shrink,
               Panel.DIVERSITY),
        _fault("label shuffle", "5 % of the labels change places", _shuffle_labels, Panel.LABEL_FIDELITY),
        _fault("blur", "Gaussian, of deviation 1 pixel", _blur, Panel.REALISM),
        _fault("noise", "Gaussian, of deviation 30 of 255", _add_noise, Panel.REALISM),
    )  # fmt: skip
