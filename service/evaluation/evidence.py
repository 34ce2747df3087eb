"""What the panels look at: samples and real rows, as workers read them.

The pipeline gathers it chunk by chunk, from files that steps left; panels and figures are functions of it. Memory grows
with the number of rows, never with its square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEIGHBOURS", "Evidence", "LabelGrid", "Nearest", "RealRows", "Samples"]

NEIGHBOURS = 10
"""How many nearest training rows are kept of each sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What the generator drew, in order of the index, failed ones left out.

    Attributes:
        indices: (n,) uint64, ascending: with the seed, where each can be drawn again.
        images: (n, H, W, C) uint8.
        labels: (n,) int64, the class each was asked for, as the data set numbers them; None: unconditional.
        features: (n, d) float32, finite.
        probabilities: (n, classes) float32, in the data set's order of classes, finite.
    """

    indices: NDArray[np.uint64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class RealRows:
    """Rows of one split, in its order.

    Attributes:
        images: (m, H, W, C) uint8.
        labels: (m,) int64.
        features: (m, d) float32, finite.
        probabilities: (m, classes) float32.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


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
    """The same noise under every label: address a, class k.

    Attributes:
        images: (a, classes, H, W, C) uint8.
        predicted: (a, classes) int64, what the classifier reads; -1 where it failed.
    """

    images: NDArray[np.uint8]
    predicted: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything there is to look at.

    Attributes:
        samples: of the generator.
        failed: how many samples could not be drawn, or were not finite once read.
        held_out: rows it has not seen.
        training: rows it may have learned from.
        nearest: by space; empty where memorisation is not asked about.
        label_grid: None where label fidelity is not asked about.
        classes: names, in order of their id.
        seed: of everything that is drawn here.
    """

    samples: Samples
    failed: int
    held_out: RealRows
    training: RealRows
    nearest: Mapping[str, Nearest]
    label_grid: LabelGrid | None
    classes: tuple[str, ...]
    seed: int
