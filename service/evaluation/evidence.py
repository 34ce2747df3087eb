"""Evidence: the samples and real rows of an evaluation, as workers and the pipeline leave them.

The evidence builder collects it from the files of earlier steps; panels and figures are functions of it. Memory grows
with the number of rows, never with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEWEST_HELD_OUT", "NEIGHBOURS", "Duplicates", "Evidence", "ImageSet", "LabelGrid", "LogLikelihoods", "Nearest",
    "RealRows", "Samples",
]  # fmt: skip

_Value = TypeVar("_Value")

NEIGHBOURS = 10
"""How many nearest training rows are kept for each sample."""

FEWEST_HELD_OUT = 50
"""Rows that are surely held out, below which nothing can be compared with them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images with what the extractor and the classifier computed from them.

    Attributes:
        images: (n, H, W, C) uint8.
        features: (n, d) float32, finite.
        probabilities: (n, classes) float32, finite, in the data set's order of classes.
    """

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the class that the classifier predicts for each image."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples(ImageSet):
    """Samples of the generator, in order of the index, without failed ones.

    Attributes:
        indices: (n,) uint64, ascending: with the seed, the address at which each can be drawn again.
        labels: (n,) int64, the requested class, numbered as in the data set; None: unconditional.
    """

    indices: NDArray[np.uint64]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RealRows(ImageSet):
    """Rows of one split, in its order.

    Attributes:
        labels: (n,) int64.
        numbers: (n,) int64, ascending: the number of each row in its split.
    """

    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Duplicates:
    """Rows that equal others pixel for pixel, and so are left out of the comparison.

    Attributes:
        leaked: (n,) int64, numbers of the held-out rows that equal a training row: the generator may have seen them.
        repeated_held_out: how many other held-out rows equal an earlier one.
        repeated_training: how many training rows equal an earlier one.
        held_out_left: how many held-out rows are left; below `FEWEST_HELD_OUT` those that leaked were kept, so that
            nothing compared with held-out rows means anything.
    """

    leaked: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    repeated_held_out: int = 0
    repeated_training: int = 0
    held_out_left: int = FEWEST_HELD_OUT


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The nearest training rows of samples and of held-out rows, in one space ("pixels" or "features").

    Attributes:
        sample_distances: (n, NEIGHBOURS) float64, ascending, Euclidean; pixels as 0 to 255.
        sample_rows: (n,) int64, the nearest training row.
        held_out_distances: (m, NEIGHBOURS) float64.
    """

    sample_distances: NDArray[np.float64]
    sample_rows: NDArray[np.int64]
    held_out_distances: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelGrid:
    """Samples of the same noise under every label: address a, class k.

    Attributes:
        images: (a, classes, H, W, C) uint8.
        predicted: (a, classes) int64, the classifier's prediction; -1 where it failed.
    """

    images: NDArray[np.uint8]
    predicted: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LogLikelihoods:
    """What the generator scores real rows: log p(x|y) of each with its label, or log p(x) of an unconditional one.

    Attributes:
        name: of the score.
        training: (n,) float64, finite, of training rows drawn without replacement.
        held_out: (m,) float64, finite.
    """

    name: str
    training: NDArray[np.float64]
    held_out: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All data of an evaluation that panels and figures use.

    Attributes:
        samples: of the generator.
        failed: how many samples could not be drawn, or were not finite.
        held_out: real rows that the generator was not trained on.
        training: real rows that it may have been trained on.
        nearest: by space; empty without the memorisation panel.
        label_grid: None without the label fidelity panel.
        classes: names, in order of their id.
        seed: of all random draws.
        extractor, classifier: names of the models that read the images.
        duplicates: which rows of either split were left out.
        log_likelihoods: None where the generator gives none, or the caller may not score.
    """

    samples: Samples
    failed: int
    held_out: RealRows
    training: RealRows
    nearest: Mapping[str, Nearest]
    label_grid: LabelGrid | None
    classes: tuple[str, ...]
    seed: int
    extractor: str = "the extractor"
    classifier: str = "the classifier"
    duplicates: Duplicates = field(default_factory=Duplicates)
    log_likelihoods: LogLikelihoods | None = None
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def compared(self) -> int:
        """How many samples, from the first, are compared as a set: at most as many as there are training rows."""
        return min(len(self.samples), len(self.training))

    def cached(self, name: str, compute: Callable[[], _Value]) -> _Value:
        """Compute a value that several parts need once, by name. Two threads may both compute it, to the same value."""
        if name not in self._cache:
            self._cache[name] = compute()
        value: _Value = self._cache[name]
        return value
