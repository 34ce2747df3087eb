"""Data sets for training, by name: scikit-learn's digits, MNIST with its authors' split, shapes, points, and text.

A name and a folder enter; a `TrainingData` of training and test rows leaves. Tasks train on its training rows, quality
measurements use its test rows. Nothing here draws random numbers: a data set has the same rows in the same order on
every machine, and its digest identifies them.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998 (MNIST).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.readers.dataset import DataError
from fount.readers.digits import DIGITS_CLASSES, DIGITS_LICENCE, LARGEST_PIXEL, read_digit_rows
from fount.readers.idx import find_idx, read_idx
from fount.readers.shapes import SHAPE_CLASSES, SHAPE_LICENCE, SHAPE_SPLITS, draw_shapes, shapes_digest
from handlers.recipes.data.colours import colour_images, draw_hues
from handlers.recipes.data.points import LAWS, POINTS_LICENCE, draw_points
from handlers.recipes.data.text import (
    GRAMMAR_LENGTH,
    GRAMMAR_LICENCE,
    VERSE_LENGTH,
    VERSE_LICENCE,
    draw_sentences,
    read_verse,
    rows_of_lines,
    split_text,
)

__all__ = ["DATA_SETS", "MNIST_FILES", "DataError", "Split", "TrainingData", "check_classes", "load_data"]

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Files of MNIST, each plain or with the suffix .gz."""

_MNIST_SIDE = 28
_MNIST_LICENCE = (
    "CC BY-SA 3.0: Yann LeCun and Corinna Cortes, The MNIST database of handwritten digits, "
    "derived from NIST Special Databases 1 and 3"
)
_COLOURED_TRAIN, _COLOURED_TEST = 20_000, 5000
_TRAIN_POINTS, _TEST_POINTS = 20_000, 10_000
_TRAIN_SENTENCES, _TEST_SENTENCES = 20_000, 3000
_MIN_OF_CLASS = 2  # pictures of a class: distances are measured between two of them


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled pictures, points or texts.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]; of points and of the bytes of texts, (N, length) float32.
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def of_class(self, label: int) -> Tensor:
        """Select the rows of one class in their order."""
        return self.images[self.labels == label]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A data set of labelled pictures, points or texts with its training and test rows.

    Attributes:
        name: key of `DATA_SETS`.
        train: rows to train on.
        test: rows to measure with, none of them in `train`.
        classes: names of the labels 0, 1, ...
        digest: SHA-256 of all values and labels, independent of the file format.
        licence: of the data, for model cards.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    digest: str
    licence: str


def load_data(name: str, folder: Path | None = None) -> TrainingData:
    """Read a data set of `DATA_SETS`; the folder contains those that are files, digits are part of scikit-learn.

    Raises:
        DataError: the name is unknown, or files are missing or damaged.
    """
    if name not in DATA_SETS:
        raise DataError(f"data set {name!r} is unknown; name one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name](folder)


def check_classes(data: TrainingData) -> None:
    """Make sure that every class can be trained and measured.

    Raises:
        DataError: training or test rows have too few pictures of a class; all such classes are named.
    """
    for part, rows in (("training", data.train), ("test", data.test)):
        counts = torch.bincount(rows.labels, minlength=len(data.classes)).tolist()
        if few := [name for name, count in zip(data.classes, counts, strict=True) if count < _MIN_OF_CLASS]:
            raise DataError(
                f"the {part} rows of {data.name} have fewer than {_MIN_OF_CLASS} pictures of {', '.join(few)}; name "
                "the folder of the whole data set with --data"
            )


def _load_digits(_folder: Path | None) -> TrainingData:
    """Read 1442 training and 355 test rows from scikit-learn's wheel; pixels have 17 levels."""
    rows = read_digit_rows()
    return TrainingData(
        name="digits",
        train=_to_split(rows.pixels[~rows.is_test], rows.labels[~rows.is_test], LARGEST_PIXEL),
        test=_to_split(rows.pixels[rows.is_test], rows.labels[rows.is_test], LARGEST_PIXEL),
        classes=DIGITS_CLASSES,
        digest=rows.digest,
        licence=DIGITS_LICENCE,
    )


def _load_mnist(folder: Path | None) -> TrainingData:
    """Read 60 000 training and 10 000 test rows from four files in a folder, or below it as in torchvision."""
    files = _find_mnist(folder)
    train, test = _read_mnist(*files[:2]), _read_mnist(*files[2:])
    digest = hashlib.sha256()
    for array in (*train, *test):
        digest.update(array.data)
    return TrainingData(
        name="mnist",
        train=_to_split(*train, white=255),
        test=_to_split(*test, white=255),
        classes=DIGITS_CLASSES,
        digest=f"sha256:{digest.hexdigest()}",
        licence=_MNIST_LICENCE,
    )


def _load_shapes(_folder: Path | None) -> TrainingData:
    """Draw 20 000 training and 4000 test pictures of shapes on marble, which takes half a minute."""
    splits = {}
    for name, (first, count) in SHAPE_SPLITS.items():
        pixels, factors = draw_shapes(first, count)
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))  # (N, H, W, C) -> (N, C, H, W)
        splits[name] = Split(images=images.float().div_(255), labels=torch.from_numpy(factors.shape.astype(np.int64)))
    return TrainingData(name="shapes64", **splits, classes=SHAPE_CLASSES, digest=shapes_digest(), licence=SHAPE_LICENCE)


def _load_colours(folder: Path | None) -> TrainingData:
    """Colour the first 20 000 training and 5000 test rows of MNIST."""
    grey = load_data("mnist", folder)
    train, test = (
        _colour(split, count, start_index)
        for split, count, start_index in (
            (grey.train, _COLOURED_TRAIN, 0),
            (grey.test, _COLOURED_TEST, len(grey.train.labels)),
        )
    )
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(split.images.numpy().astype("<f4").data)
        digest.update(split.labels.numpy().astype("u1").data)
    return TrainingData(
        name="mnist-colour",
        train=train,
        test=test,
        classes=grey.classes,
        digest=f"sha256:{digest.hexdigest()}",
        licence=grey.licence,
    )


def _colour(split: Split, count: int, start_index: int) -> Split:
    labels = split.labels[:count]
    return Split(images=colour_images(split.images[:count], draw_hues(labels, start_index)), labels=labels)


def _load_points(name: str, _folder: Path | None) -> TrainingData:
    """Draw 20 000 training and 10 000 test points of a known law; the label of a point is its likeliest component."""
    points, labels = draw_points(name, _TRAIN_POINTS + _TEST_POINTS)
    digest = hashlib.sha256(points.numpy().astype("<f4").tobytes() + labels.numpy().astype("u1").tobytes())
    return TrainingData(
        name=name,
        train=Split(images=points[:_TRAIN_POINTS], labels=labels[:_TRAIN_POINTS]),
        test=Split(images=points[_TRAIN_POINTS:], labels=labels[_TRAIN_POINTS:]),
        classes=tuple(map(str, range(len(LAWS[name]["weights"])))),
        digest=f"sha256:{digest.hexdigest()}",
        licence=POINTS_LICENCE,
    )


def _load_verse(folder: Path | None) -> TrainingData:
    """Read the rows that begin with a line of the plays; of the last tenth, for tests, those that do not overlap."""
    text = read_verse(folder)
    train, test = split_text(text)
    return _to_texts("verse", train, test, VERSE_LENGTH, VERSE_LICENCE)


def _load_grammar(_folder: Path | None) -> TrainingData:
    """Draw 20 000 sentences for training and 3000 for tests, as rows like those of the plays."""
    lines = [f"{sentence}\n".encode() for sentence in draw_sentences(0, _TRAIN_SENTENCES + _TEST_SENTENCES)]
    train, test = b"".join(lines[:_TRAIN_SENTENCES]), b"".join(lines[_TRAIN_SENTENCES:])
    return _to_texts("grammar", train, test, GRAMMAR_LENGTH, GRAMMAR_LICENCE)


def _to_texts(name: str, train: bytes, test: bytes, length: int, licence: str) -> TrainingData:
    parts = rows_of_lines(train, length, overlapping=True), rows_of_lines(test, length, overlapping=False)
    train_rows, test_rows = (Split(images=rows, labels=torch.zeros(len(rows), dtype=torch.int64)) for rows in parts)
    return TrainingData(
        name=name,
        train=train_rows,
        test=test_rows,
        classes=("text",),
        digest=f"sha256:{hashlib.sha256(train + test).hexdigest()}",
        licence=licence,
    )


def _find_mnist(folder: Path | None) -> list[Path]:
    places = [] if folder is None else [folder, folder / "mnist", folder / "raw", folder / "MNIST" / "raw"]
    found = [{name: file for name in MNIST_FILES if (file := find_idx(place, name))} for place in places]
    best = max(found, key=len, default={})
    if missing := [name for name in MNIST_FILES if name not in best]:
        searched = f" (looked in {', '.join(map(str, places))})" if places else ""
        raise DataError(
            f"MNIST lacks {', '.join(missing)}{searched}; get the four files {', '.join(MNIST_FILES)}, plain or .gz, "
            "from any mirror of MNIST, and name their folder with --data DIR or FOUNT_DATA"
        )
    return [best[name] for name in MNIST_FILES]


def _read_mnist(images_file: Path, labels_file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.shape[1:] != (_MNIST_SIDE, _MNIST_SIDE):
        found = "×".join(map(str, images.shape[1:]))
        raise DataError(f"{images_file} has pictures of {found} pixels, MNIST's have 28×28; put MNIST's file there")
    if len(images) != len(labels) or not len(labels):
        counts = f"{images_file} has {len(images)} pictures and {labels_file} {len(labels)} labels"
        raise DataError(f"{counts}; both must be equal and not 0; put files of one download there")
    if len(wrong := np.flatnonzero(labels >= len(DIGITS_CLASSES))):
        row = int(wrong[0])
        raise DataError(f"{labels_file} has label {labels[row]} in row {row}, digits are 0 to 9; download it again")
    return images, labels


def _to_split(images: NDArray[np.uint8], labels: NDArray[np.uint8], white: int) -> Split:
    floats = torch.from_numpy(images.astype(np.float32) / np.float32(white))
    return Split(images=floats[:, None], labels=torch.from_numpy(labels.astype(np.int64)))  # (N, H, W) -> (N, 1, H, W)


DATA_SETS: Mapping[str, Callable[[Path | None], TrainingData]] = MappingProxyType(
    {
        "digits": _load_digits,
        "mnist": _load_mnist,
        "mnist-colour": _load_colours,
        "shapes64": _load_shapes,
        "verse": _load_verse,
        "grammar": _load_grammar,
        **{name: partial(_load_points, name) for name in LAWS},
    }
)
"""Loaders by name; each receives the data folder."""
