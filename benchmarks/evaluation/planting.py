"""Faults planted into a generator that has none, so that it is known which panel must fire.

The generator without a fault hands out real training rows that the panels take for unseen: what is said of it is
said of real data. Every fault changes images or labels alone; features and probabilities are read again from what it
leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, Nearest, RealRows, Samples
from service.evaluation.panels.part import JSON
from service.evaluation.panels.registry import evaluate_panel, parts_of
from service.evaluation.results import Metric, Panel, PanelResult
from service.evaluation.statistics.distances import nearest

__all__ = ["Drawn", "Fault", "Reader", "Source", "evaluate", "faults", "gather", "nearest_rows", "real_rows"]

Reader = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(n, H, W, C) uint8 images to (n, d) features and (n, classes) probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What a generator hands out: (n, H, W, C) uint8 images, and the labels they were asked for, (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What a fault may use.

    Attributes:
        drawn: what the generator without a fault hands out.
        pool: more of the same.
        training: real rows the generator may have learned from.
        read: what workers do.
        random: the same for every fault.
    """

    drawn: Drawn
    pool: Drawn
    training: RealRows
    read: Reader
    random: np.random.Generator


Plant = Callable[[Source], Drawn]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, in words, and the panels that must fire."""

    name: str
    says: str
    fires: frozenset[Panel]
    plant: Plant


def real_rows(images: NDArray[np.uint8], labels: NDArray[np.int64], read: Reader) -> RealRows:
    """Rows as workers would have read them."""
    features, probabilities = read(images)
    return RealRows(images=images, labels=labels, features=features, probabilities=probabilities)


def nearest_rows(
    images: NDArray[np.uint8], features: NDArray[np.float32], training: RealRows
) -> dict[str, tuple[Any, Any]]:
    """Distances and numbers of the nearest training rows, by space."""
    spaces = {"pixels": (images, training.images), "features": (features, training.features)}
    return {space: nearest(queries, rows, NEIGHBOURS) for space, (queries, rows) in spaces.items()}


def gather(
    drawn: Drawn, answers: NDArray[np.uint8], training: RealRows, held_out: RealRows, read: Reader,
    classes: tuple[str, ...], held_out_nearest: Mapping[str, NDArray[np.float64]], *, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Everything the panels look at.

    Args:
        drawn: samples.
        answers: (addresses, classes, H, W, C) uint8: the same noise under every label.
        training: real rows the generator may have learned from.
        held_out: real rows it has not seen.
        read: what workers do.
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
    flat = answers.reshape(-1, *answers.shape[2:])
    predicted = np.argmax(read(flat)[1], axis=1).reshape(answers.shape[:2])
    return Evidence(
        samples=samples, failed=0, held_out=held_out, training=training, nearest=found,
        label_grid=LabelGrid(images=answers, predicted=predicted), classes=classes, seed=seed,
    )  # fmt: skip


def evaluate(evidence: Evidence, known: dict[tuple[object, ...], JSON]) -> tuple[list[Metric], list[PanelResult]]:
    """Every panel's metrics and verdicts.

    Args:
        evidence: of a conditional model.
        known: what draws of training rows left, kept between calls on the same real rows.
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


def _none(source: Source) -> Drawn:
    return source.drawn


def _copy(deviation: float) -> Plant:
    """5 % of the samples become training rows of their class, with that much noise on them."""

    def plant(source: Source) -> Drawn:
        drawn, random = source.drawn, source.random
        images = drawn.images.copy()
        for row in random.choice(len(images), len(images) // 20, replace=False):
            same = np.flatnonzero(source.training.labels == drawn.labels[row])
            copied = source.training.images[random.choice(same)].astype(np.float64)
            images[row] = _to_pixels(copied + random.normal(0, deviation, copied.shape) if deviation else copied)
        return replace(drawn, images=images)

    return plant


def _collapse(classes: tuple[int, ...], prototypes: int) -> Plant:
    """Samples of some classes, or of all, become few prototypes of their class with tiny noise."""

    def plant(source: Source) -> Drawn:
        drawn, random = source.drawn, source.random
        images = drawn.images.copy()
        wanted = classes or tuple(np.unique(drawn.labels))
        for each in wanted:
            own = np.flatnonzero(drawn.labels == each)
            few = random.choice(own, max(1, prototypes // len(wanted)), replace=False)
            copied = drawn.images[random.choice(few, len(own))].astype(np.float64)
            images[own] = _to_pixels(copied + random.normal(0, 1, copied.shape))
        return replace(drawn, images=images)

    return plant


def _shrink(source: Source) -> Drawn:
    """Only the fifth of the pool that is nearest to the mean of its class, in features; every row once."""
    pool = source.pool
    features = source.read(pool.images)[0].astype(np.float64)
    kept = []
    for each in np.unique(pool.labels):
        own = np.flatnonzero(pool.labels == each)
        away = np.linalg.norm(features[own] - features[own].mean(axis=0), axis=1)
        kept.append(own[np.argsort(away, kind="stable")[: len(own) // 5]])
    rows = source.random.permutation(np.concatenate(kept))[: len(source.drawn.labels)]
    return Drawn(images=pool.images[rows], labels=pool.labels[rows])


def _shuffle_labels(source: Source) -> Drawn:
    """5 % of the labels change places."""
    labels = source.drawn.labels.copy()
    moved = source.random.choice(len(labels), len(labels) // 20, replace=False)
    labels[moved] = labels[source.random.permutation(moved)]
    return replace(source.drawn, labels=labels)


def _blur(source: Source) -> Drawn:
    blurred = ndimage.gaussian_filter(source.drawn.images.astype(np.float64), (0, 1, 1, 0))
    return replace(source.drawn, images=_to_pixels(blurred))


def _add_noise(source: Source) -> Drawn:
    images = source.drawn.images
    return replace(source.drawn, images=_to_pixels(images + source.random.normal(0, 30, images.shape)))


def _to_pixels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _fault(name: str, says: str, plant: Plant, *fires: Panel) -> Fault:
    return Fault(name=name, says=says, fires=frozenset(fires), plant=plant)


def faults(*, prototypes: int = 200, collapsed: int = 3) -> tuple[Fault, ...]:
    """All faults.

    Args:
        prototypes: how many pictures a collapsed generator knows.
        collapsed: the class of which a generator knows only a tenth as many.
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
