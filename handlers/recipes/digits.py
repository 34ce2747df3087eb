"""The digits of scikit-learn: 1797 pictures of 8×8 pixels inside its wheel, cut into training and test rows.

Every fifth picture of a class, in file order, is a test row. The split needs no random numbers, so it is the same for
every recipe, seed and version of anything.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from handlers.recipes.data_set import DataSet, Split

__all__ = ["load_split_digits"]

_CLASSES = tuple(str(digit) for digit in range(10))
_LICENCE = (
    "CC BY 4.0: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49, as distributed with scikit-learn"
)
_LARGEST_PIXEL = 16
_TEST_EVERY = 5


def load_split_digits() -> DataSet:
    """Read 1442 training and 355 test rows from scikit-learn's wheel."""
    data = load_digits()
    pixels = np.asarray(data.images, np.uint8)  # (1797, 8, 8), 0 to 16
    labels = np.asarray(data.target, np.int64)
    digest = hashlib.sha256(pixels.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    is_test = _count_within_class(labels) % _TEST_EVERY == _TEST_EVERY - 1
    return DataSet(
        name="digits",
        train=_take(pixels, labels, ~is_test),
        test=_take(pixels, labels, is_test),
        classes=_CLASSES,
        digest=f"sha256:{digest}",
        licence=_LICENCE,
    )


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
