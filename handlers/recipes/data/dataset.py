"""What a data set is: labelled pictures that somebody else cut into training rows and test rows.

Loaders make it, training sees its training rows, measures see its test rows; its digest says which rows they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fount.readers.dataset import DataError

__all__ = ["DataError", "DataSet", "Split", "check_classes"]

_LEAST = 2  # pictures of a class: those of one alone lie at no distance from each other


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled pictures.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def of_class(self, label: int) -> Tensor:
        """Pictures of one class, (n, C, H, W), in their order."""
        return self.images[self.labels == label]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Labelled pictures, cut in two.

    Attributes:
        name: key of `DATA_SETS`.
        train: rows to learn.
        test: rows to measure by, none of them in train.
        classes: names of the labels 0, 1, ...
        digest: SHA-256 of all pixels and labels, whatever they were packed in.
        licence: of the data, for cards.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    digest: str
    licence: str


def check_classes(data: DataSet) -> None:
    """Make sure that every class can be trained and measured.

    Raises:
        DataError: training or test rows have too few of a class; all such classes are named.
    """
    for what, rows in (("training", data.train), ("test", data.test)):
        counts = torch.bincount(rows.labels, minlength=len(data.classes)).tolist()
        if few := [name for name, count in zip(data.classes, counts, strict=True) if count < _LEAST]:
            told = f"the {what} rows of {data.name} have fewer than {_LEAST} pictures of {', '.join(few)}"
            raise DataError(f"{told}; name the folder of the whole data set with --data")
