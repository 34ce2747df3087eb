"""The digits of scikit-learn, as training sees them: pixels from 0 to 1 in the seventeen steps the file has."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fount.readers.digits import DIGITS_CLASSES, DIGITS_LICENCE, LARGEST_PIXEL, DigitRows, read_digit_rows
from handlers.recipes.data.dataset import DataSet, Split

__all__ = ["load_split_digits"]


def load_split_digits() -> DataSet:
    """Read 1442 training and 355 test rows from scikit-learn's wheel.

    Raises:
        DataError: scikit-learn is not installed, or its file is not what it was.
    """
    rows = read_digit_rows()
    return DataSet(
        name="digits",
        train=_take(rows, ~rows.is_test),
        test=_take(rows, rows.is_test),
        classes=DIGITS_CLASSES,
        digest=rows.digest,
        licence=DIGITS_LICENCE,
    )


def _take(rows: DigitRows, chosen: NDArray[np.bool_]) -> Split:
    images = torch.from_numpy(rows.pixels[chosen].astype(np.float32) / LARGEST_PIXEL)
    labels = torch.from_numpy(rows.labels[chosen].astype(np.int64))
    return Split(images=images[:, None], labels=labels)  # (N, 8, 8) -> (N, 1, 8, 8)
