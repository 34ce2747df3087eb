"""The digits of scikit-learn: 1797 images of 8×8 pixels inside its wheel, split into training and test rows.

Every fifth image of a class, in file order, is a test row. The split needs no random numbers, so it is the same for
every recipe, seed and version of anything. The file is read without importing scikit-learn, which takes a second.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fount.readers.dataset import ArrayPixels, DataError, Dataset, DatasetSplit

__all__ = ["DIGITS_CLASSES", "DIGITS_LICENCE", "LARGEST_PIXEL", "DigitRows", "read_digit_rows", "read_digits"]

DIGITS_CLASSES = tuple(str(digit) for digit in range(10))
DIGITS_LICENCE = (
    "CC BY 4.0: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49, as distributed with scikit-learn"
)
LARGEST_PIXEL = 16
"""The value of white in the file."""

_SIDE = 8
_ROWS = 1797
_TEST_EVERY = 5
_MAX_BYTES = 4 << 20  # decompressed; ten times the size of the known file


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitRows:
    """The rows in file order: (1797, 8, 8) pixels from 0 to 16, and the label of each row."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    is_test: NDArray[np.bool_]

    @property
    def digest(self) -> str:
        """SHA-256 of pixels and labels in file order, as in model cards."""
        return f"sha256:{hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()}"


def read_digits() -> Dataset:
    """Read 1442 training and 355 test rows, with pixels from 0 to 255."""
    rows = read_digit_rows()
    scaled = np.rint(rows.pixels * (255 / LARGEST_PIXEL)).astype(np.uint8)[..., None]  # (N, 8, 8) -> (N, 8, 8, 1)
    splits = {}
    for name, chosen in (("train", ~rows.is_test), ("test", rows.is_test)):
        labels, pixels = rows.labels[chosen].astype(np.uint32), ArrayPixels(array=scaled[chosen])
        splits[name] = DatasetSplit(name=name, labels=labels, shape=(_SIDE, _SIDE, 1), pixels=pixels)
    return Dataset(
        name="digits",
        format="built-in",
        classes=DIGITS_CLASSES,
        shape=(_SIDE, _SIDE, 1),
        splits=MappingProxyType(splits),
        licence=DIGITS_LICENCE,
        own_digest=lambda: rows.digest,
    )


def read_digit_rows() -> DigitRows:
    """Read the rows in file order.

    Raises:
        DataError: scikit-learn is not installed, or its file differs from the known one.
    """
    file = _find_file()
    try:
        with gzip.open(file) as stream:
            text = stream.read(_MAX_BYTES).decode("ascii")
        table = np.array(list(csv.reader(io.StringIO(text))), np.float64).astype(np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file.name} of scikit-learn is damaged ({error}); install scikit-learn again") from error
    if table.shape != (_ROWS, _SIDE * _SIDE + 1) or table[:, :-1].max() > LARGEST_PIXEL or table[:, -1].max() > 9:
        raise DataError(f"{file.name} of scikit-learn differs from the known file; install scikit-learn again")
    labels = table[:, -1]
    is_test = _count_within_class(labels) % _TEST_EVERY == _TEST_EVERY - 1
    return DigitRows(pixels=table[:, :-1].reshape(-1, _SIDE, _SIDE), labels=labels, is_test=is_test)


def _find_file() -> Path:
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        missing = "the digits are in the package scikit-learn, which is not installed"
        raise DataError(f"{missing}; pip install scikit-learn, or fount with the extra serve")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _count_within_class(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count, for each row, the earlier rows of its class."""
    counts = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[rows] = np.arange(len(rows))
    return counts
