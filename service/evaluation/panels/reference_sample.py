"""Who stands in the place of samples: the samples themselves, or as many training rows, drawn without replacement.

Statistics of realism and diversity compare either with the held-out rows, so that what real rows score comes from the
same computation at the same size. All draws are keyed by the evaluation's seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence, RealRows, Samples
from service.evaluation.statistics.intervals import BLOCKS

__all__ = [
    "DRAWS",
    "ImageSet",
    "as_drawn",
    "class_reference_sample",
    "class_samples",
    "classes_of",
    "compared",
    "generator",
    "held_out",
    "held_out_class",
    "reference_sample",
]  # fmt: skip

DRAWS = 8
"""How often training rows are drawn to stand in the place of samples. Of 8 draws the range is 2.5 deviations wide a
side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Rows in the place of samples.

    Attributes:
        images: (n, H, W, C) uint8.
        features: (n, d) float32.
        probabilities: (n, classes) float32.
        of: how many rows they were drawn from; n or more.
        blocks: of a jackknife of them; 1 where other draws of the same show the spread, and the value is enough.
    """

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    of: int
    blocks: int = BLOCKS

    def __len__(self) -> int:
        return len(self.images)


def generator(seed: int, purpose: str, number: int = 0) -> np.random.Generator:
    """A generator keyed by the evaluation's seed, the purpose and a number; the same on every machine."""
    words = [seed & 0xFFFFFFFF, seed >> 32, number, *purpose.encode()]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def compared(evidence: Evidence) -> ImageSet:
    """The samples that are compared as sets: as many as there are training rows at most."""
    return _take(evidence.samples, slice(0, len(evidence.training)), len(evidence.samples))


def reference_sample(evidence: Evidence, number: int) -> ImageSet | None:
    """Draw training rows, as many as samples are compared.

    Args:
        evidence: what there is.
        number: of the draw, from 0.

    Returns:
        The rows; None for any draw but the first when it would repeat more than half of the training rows.
    """
    count = min(len(evidence.samples), len(evidence.training))
    rows = np.arange(len(evidence.training))
    return _draw(evidence.training, rows, count, generator(evidence.seed, "draw", number), number)


def held_out(evidence: Evidence) -> ImageSet:
    """The held-out rows, which everything is compared with."""
    return _take(evidence.held_out, slice(None), len(evidence.held_out))


def classes_of(evidence: Evidence, rows: Samples | RealRows) -> NDArray[np.int64]:
    """The class of each row: what was asked for, or the true one; of unconditional models what the classifier reads."""
    if evidence.samples.labels is None or rows.labels is None:
        read: NDArray[np.int64] = np.argmax(rows.probabilities, axis=1).astype(np.int64)
        return read
    return rows.labels


def class_samples(evidence: Evidence, class_id: int) -> ImageSet:
    """All samples of a class."""
    return _take(evidence.samples, np.flatnonzero(classes_of(evidence, evidence.samples) == class_id), 0)


def class_reference_sample(evidence: Evidence, class_id: int, number: int | None) -> ImageSet | None:
    """The samples of a class that are compared, or a draw of as many training rows of it; None as `reference_sample`."""  # noqa: E501
    rows = np.flatnonzero(classes_of(evidence, evidence.training) == class_id)
    own = np.flatnonzero(classes_of(evidence, evidence.samples) == class_id)
    count = min(len(own), len(rows))
    if number is None:
        return _take(evidence.samples, own[:count], len(own))
    return _draw(evidence.training, rows, count, generator(evidence.seed, f"class {class_id}", number), number)


def held_out_class(evidence: Evidence, class_id: int) -> ImageSet:
    """The held-out rows of a class."""
    return _take(evidence.held_out, np.flatnonzero(classes_of(evidence, evidence.held_out) == class_id), 0)


def as_drawn(rows: int, of: int) -> bool:
    """Whether draws of `rows` from `of` differ enough from each other to be a null: they take half of them at most."""
    return 2 * rows <= of


def _draw(
    training: RealRows, rows: NDArray[np.int64], count: int, drawing: np.random.Generator, number: int
) -> ImageSet | None:
    several = as_drawn(count, len(rows))
    if number > 0 and not several:
        return None
    drawn = _take(training, np.sort(drawing.choice(rows, count, replace=False)), len(rows))
    return replace(drawn, blocks=1) if several else drawn


def _take(rows: Samples | RealRows, which: slice | NDArray[np.int64], of: int) -> ImageSet:
    return ImageSet(
        images=rows.images[which], features=rows.features[which], probabilities=rows.probabilities[which], of=of
    )
