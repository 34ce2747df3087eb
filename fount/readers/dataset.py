"""What a data set is: labelled images of one shape, cut into splits.

Readers make it; plans, filters and training read it. Labels and groups are in memory, pixels are read when asked for.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayPixels", "DataError", "Dataset", "DatasetSplit", "FileStamp", "Pixels"]


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


# FOLDED FROM fount.readers.dataset:
# Files that are read again and again, and must stay what they were. A plan promises the same bytes for a row
# always, and its ticket pins the digest of what was read first; so a file that was changed since is refused
# rather than read. It also keeps a shortened file that is mapped into memory from being touched beyond its end,
# which would end the process.


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """A file as it was when it was read first.

    Attributes:
        file: where it is.
        size: in bytes.
        modified_ns: when it was last written to.
    """

    file: Path
    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """Note what a file is now.

        Raises:
            DataError: it cannot be seen, or is no ordinary file.
        """
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(
                f"{file} cannot be read: {error.strerror or error}; check its path and permissions"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{file} is no file; name a file")
        return cls(file=file, size=found.st_size, modified_ns=found.st_mtime_ns)

    def check(self) -> None:
        """Make sure that it is what it was.

        Raises:
            DataError: it was changed, or is gone.
        """
        if FileStamp.of(self.file) != self:
            raise DataError(f"{self.file} was changed after it was read; put it back, or restart what reads it")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPixels:
    """Images that are an array, in memory or mapped into it.

    Attributes:
        array: (n, H, W, C) uint8.
        stamp: the file it is mapped from; None: it is in memory.
    """

    array: NDArray[np.uint8]
    stamp: FileStamp | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows; (k, H, W, C) uint8."""
        if self.stamp is not None:
            self.stamp.check()
        return np.asarray(self.array[rows])
