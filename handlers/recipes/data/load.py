"""Data sets by name.

A recipe names its data, and `load_data` reads it. Nothing here draws random numbers: a data set is the same rows in the
same order on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from fount.readers.digits import DIGITS_CLASSES, DIGITS_LICENCE, LARGEST_PIXEL, DigitRows, read_digit_rows
from fount.readers.idx import find_idx, read_idx
from handlers.recipes.data.dataset import DataError, DataSet, Split

__all__ = ["DATA_SETS", "MNIST_FILES", "load_data", "load_mnist", "load_split_digits"]


def load_data(name: str, folder: Path | None = None) -> DataSet:
    """Read a data set.

    Args:
        name: key of `DATA_SETS`.
        folder: where the sets that are files lie; digits are inside scikit-learn and need none.

    Raises:
        DataError: the name is unknown, or files are missing or damaged.
    """
    if name not in DATA_SETS:
        raise DataError(f"data set {name!r} is unknown; name one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name](folder)


def _load_digits(_folder: Path | None) -> DataSet:
    pass

    return load_split_digits()


def _load_mnist(folder: Path | None) -> DataSet:
    pass

    return load_mnist(folder)


DATA_SETS: Mapping[str, Callable[[Path | None], DataSet]] = MappingProxyType(
    {"digits": _load_digits, "mnist": _load_mnist}
)
"""Loaders by name; each gets the data folder."""


# FOLDED FROM handlers.recipes.data.load:
# The digits of scikit-learn, as training sees them: pixels from 0 to 1 in the seventeen steps the file has.


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


# FOLDED FROM handlers.recipes.data.load:
# MNIST: 60 000 training and 10 000 test pictures of handwritten digits, 28×28 pixels, from four IDX files. The
# split is the authors' own. The files are read as any mirror gives them, gzip or plain, with the same digest.
# Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.


MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Each plain, or with .gz."""

_SIDE = 28
_CLASSES = tuple(str(digit) for digit in range(10))
_LICENCE = (
    "CC BY-SA 3.0: Yann LeCun and Corinna Cortes, The MNIST database of handwritten digits, "
    "derived from NIST Special Databases 1 and 3"
)

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load_mnist(folder: Path | None) -> DataSet:
    """Read the four files.

    Args:
        folder: holds them, or a subfolder `mnist` that does.

    Raises:
        DataError: files are missing, damaged, of other sizes, or do not belong together.
    """
    files = _find_files(folder)
    train, test = _read_split(*files[:2]), _read_split(*files[2:])
    digest = hashlib.sha256()
    for array in (*train, *test):
        digest.update(array.data)
    return DataSet(
        name="mnist",
        train=_to_split(*train),
        test=_to_split(*test),
        classes=_CLASSES,
        digest=f"sha256:{digest.hexdigest()}",
        licence=_LICENCE,
    )


def _find_files(folder: Path | None) -> list[Path]:
    places = [] if folder is None else [folder, folder / "mnist"]
    found = [{name: file for name in MNIST_FILES if (file := find_idx(place, name))} for place in places]
    best = max(found, key=len, default={})
    if missing := [name for name in MNIST_FILES if name not in best]:
        looked = f" (looked in {' and '.join(map(str, places))})" if places else ""
        raise DataError(
            f"MNIST lacks {', '.join(missing)}{looked}; get the four files {', '.join(MNIST_FILES)}, plain or .gz, "
            "from any mirror of MNIST, and name their folder with --data DIR or FOUNT_DATA"
        )
    return [best[name] for name in MNIST_FILES]


def _read_split(images_file: Path, labels_file: Path) -> Arrays:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.shape[1:] != (_SIDE, _SIDE):
        found = "×".join(map(str, images.shape[1:]))
        raise DataError(f"{images_file} holds pictures of {found} pixels, MNIST's have 28×28; put MNIST's file there")
    if len(images) != len(labels) or not len(labels):
        counts = f"{images_file} holds {len(images)} pictures and {labels_file} {len(labels)} labels"
        raise DataError(f"{counts}; they must be as many, and some; put files of one download there")
    if len(wrong := np.flatnonzero(labels >= len(_CLASSES))):
        row = int(wrong[0])
        raise DataError(f"{labels_file} has label {labels[row]} in row {row}, digits are 0 to 9; download it again")
    return images, labels


def _to_split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    floats = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    return Split(images=floats[:, None], labels=torch.from_numpy(labels.astype(np.int64)))  # (N, H, W) -> (N, 1, H, W)
