"""MNIST: 60 000 training and 10 000 test pictures of handwritten digits, 28×28 pixels, from four IDX files.

The split is the authors' own. The files are read as any mirror gives them, gzip or plain, with the same digest.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fount.readers.idx import find_idx, read_idx
from handlers.recipes.data.dataset import DataError, DataSet, Split

__all__ = ["MNIST_FILES", "load_mnist"]

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
