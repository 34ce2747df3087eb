"""Which class each sample is asked for: the held-out split's shares, matched by every prefix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["label_samples"]


def label_samples(held_out_labels: NDArray[np.integer], classes: int, count: int) -> NDArray[np.int64]:
    """Choose a class for every sample.

    After each sample, the class chosen is the one that is furthest behind its share; of equal ones, the smaller id. So
    the first n samples hold each class as often as its share of n says, to within one or two. In whole numbers, so
    that it is the same everywhere.

    Args:
        held_out_labels: (m,) class ids of real rows; at least one.
        classes: how many there are.
        count: samples.

    Returns:
        (count,) int64; classes without a held-out row are never asked for.
    """
    share = np.bincount(held_out_labels.astype(np.int64), minlength=classes).astype(np.int64)  # of m rows
    behind = np.zeros(classes, np.int64)
    chosen = np.empty(count, np.int64)
    for sample in range(count):
        behind += share
        chosen[sample] = behind.argmax()
        behind[chosen[sample]] -= len(held_out_labels)
    return chosen
