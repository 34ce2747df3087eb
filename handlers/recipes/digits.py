"""The digits of scikit-learn: 1797 pictures of 8×8 pixels inside its wheel, cut into training and test rows.

Every fifth picture of a class, in file order, is a test row. The split needs no random numbers, so it is the same for
every recipe, seed and version of anything.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

__all__ = ["CLASSES", "Digits", "Split", "load_split_digits"]

CLASSES = tuple(str(digit) for digit in range(10))

_LARGEST_PIXEL = 16
_TEST_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled pictures.

    Attributes:
        images: (N, 1, 8, 8) float32 in [0, 1].
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def of_class(self, label: int) -> Tensor:
        """Pictures of one class, (n, 1, 8, 8)."""
        return self.images[self.labels == label]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The data set.

    Attributes:
        train: 1442 rows.
        test: 355 rows, none of them in train.
        digest: SHA-256 of all pixels and labels in file order.
    """

    train: Split
    test: Split
    digest: str


def load_split_digits() -> Digits:
    """Read the data set from scikit-learn's wheel."""
    data = load_digits()
    pixels = np.asarray(data.images, np.uint8)  # (1797, 8, 8), 0 to 16
    labels = np.asarray(data.target, np.int64)
    digest = hashlib.sha256(pixels.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    is_test = _count_within_class(labels) % _TEST_EVERY == _TEST_EVERY - 1
    return Digits(train=_take(pixels, labels, ~is_test), test=_take(pixels, labels, is_test), digest=f"sha256:{digest}")


def _count_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row, how many earlier rows have its class."""
    counts = np.empty_like(labels)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[rows] = np.arange(len(rows))
    return counts


def _take(pixels: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.bool_]) -> Split:
    images = torch.from_numpy(pixels[rows].astype(np.float32) / _LARGEST_PIXEL)
    return Split(images=images[:, None], labels=torch.from_numpy(labels[rows]))  # (N, 8, 8) -> (N, 1, 8, 8)
