"""What a data set is: labelled images of one shape, cut into splits.

Readers make it; plans, filters and training read it. Labels and groups are in memory, pixels are read when asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataError", "Dataset", "DatasetSplit", "Pixels"]

_HASHED_BYTES = 16 << 20  # of pixels at a time


class DataError(Exception):
    """A data set is absent or damaged. The message names the file, the row where there is one, and what to do."""


class Pixels(Protocol):
    """The images of a split, wherever they lie; called from several threads at once."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows, in the order given.

        Args:
            rows: (k,) int64, each one there.

        Returns:
            (k, H, W, C) uint8.

        Raises:
            DataError: a row cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetSplit:
    """One part of a data set.

    Attributes:
        name: "train", "test", or as the files have it.
        labels: (n,) uint32, class ids.
        groups: (n,) uint32, group ids; None: the data set has no group column.
        shape: of one image, (H, W, C).
        pixels: where its images are read from.
    """

    name: str
    labels: NDArray[np.uint32]
    groups: NDArray[np.uint32] | None = None
    shape: tuple[int, int, int]
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read images, in the order given; any thread may.

        Args:
            rows: (k,) int64 in 0 .. n-1, with repetitions if wanted.

        Returns:
            (k, H, W, C) uint8, C-contiguous.

        Raises:
            DataError: a row is outside, or its picture cannot be read; names it.
        """
        rows = np.asarray(rows, np.int64)
        if len(outside := rows[(rows < 0) | (rows >= len(self))]):
            raise DataError(f"row {outside[0]} of {self.name} is asked for; it has rows 0 to {len(self) - 1}")
        if not len(rows):
            return np.empty((0, *self.shape), np.uint8)
        return np.ascontiguousarray(self.pixels.read(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images of one shape.

    Attributes:
        name: what requests call it.
        format: what it is packed in: "built-in", "idx", "npz", "folder", "parquet".
        classes: names of the labels 0, 1, ...
        groups: names of the groups 0, 1, ...; empty: it has no group column.
        shape: of one image, (H, W, C).
        splits: by name, "train" first.
        licence: of the data, as whoever configured it said; may be empty.
        own_digest: computes the digest where rows lie in another order, or on another scale, than they are hashed in.
    """

    name: str
    format: str
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    shape: tuple[int, int, int]
    splits: Mapping[str, DatasetSplit]
    licence: str = ""
    own_digest: Callable[[], str] | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels and labels in order, whatever they are packed in; reads every image the first time.

        What is hashed, split after split: pixels row-major; labels, one byte each, or four little-endian ones beyond
        256 classes; the same for groups. Then, where they say more than numbers, the names of classes and groups.

        Raises:
            DataError: a row cannot be read.
        """
        if self.own_digest is not None:
            return self.own_digest()
        digest = hashlib.sha256()
        for split in self.splits.values():
            block = max(1, _HASHED_BYTES // int(np.prod(self.shape)))
            for first in range(0, len(split), block):
                rows = np.arange(first, min(first + block, len(split)), dtype=np.int64)
                digest.update(split.images(rows).data)
            digest.update(_id_bytes(split.labels, len(self.classes)))
            if split.groups is not None:
                digest.update(_id_bytes(split.groups, len(self.groups)))
        for names in (self.classes, self.groups):
            if names != tuple(map(str, range(len(names)))):
                digest.update("".join(f"{name}\n" for name in names).encode())
        return f"sha256:{digest.hexdigest()}"


def _id_bytes(ids: NDArray[np.uint32], count: int) -> bytes:
    return ids.astype(np.uint8 if count <= 256 else "<u4").tobytes()
