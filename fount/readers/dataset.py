"""The values of the readers: `DatasetSource` describes what to read, `Dataset` is what was read.

A gateway's configuration or a training recipe makes a `DatasetSource`. Readers make a `Dataset`: labelled images of one
shape in splits, with labels and groups in memory and pixels read on demand. Plans, filters and training read it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fount.cancellation import check_cancelled

__all__ = [
    "ArrayPixels", "Background", "DataError", "Dataset", "DatasetSource", "DatasetSplit", "FileVersion", "Format",
    "JoinedPixels", "LazyPixels", "Limits", "Pixels", "check_content", "read_into", "state_of_files",
]  # fmt: skip

Format = Literal["auto", "idx", "npz", "folder", "parquet"]
"""How a data set is stored; "auto" detects it."""

Background = Literal["white", "black"]
"""What transparent pixels are composited on."""

_HASH_BLOCK_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_LFS_POINTER = b"version https://git-lfs"
_NAMED_ROWS, _COUNTED_ROWS = 5, 100  # of those that are damaged: where all are, finding the next ones takes no longer


class DataError(Exception):
    """A data set is absent or damaged. The message names the file, the row where there is one, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest data set that is read; headers that announce more are refused before anything is decompressed.

    Attributes:
        max_bytes: decompressed pixels of all splits together.
        max_pixels: of one image, before it is resized.
        max_classes: different labels.
        max_rows: rows of all splits together.
    """

    max_bytes: int = 4 << 30
    max_pixels: int = 16 << 20
    max_classes: int = 10_000
    max_rows: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Where a data set is stored and how to read it.

    Attributes:
        path: its file or folder; None for a built-in one.
        format: how it is stored.
        classes: names of the labels 0, 1, ...; of a folder or string labels, the names to expect, in this order.
            Empty: as in the files, or the numbers themselves.
        group: the group column of a Parquet file or array of an NPZ file. Empty: "group" or "groups" where it exists.
        held_out: the share of every class that becomes the split "test" when the files have no such split; None: none.
        size: (height, width) every image is resized to; None: they have one size.
        channels: 1 or 3, which every image is converted to; None: as the first image has.
        background: what transparent pixels are composited on; None: white where channels is set, and otherwise images
            that have some are refused.
    """

    name: str
    path: Path | None = None
    format: Format = "auto"
    classes: tuple[str, ...] = ()
    group: str = ""
    held_out: float | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    background: Background | None = None
    licence: str = ""
    limits: Limits = Limits()

    @property
    def composited_on(self) -> Background | None:
        """The background in effect; None: transparent pixels are refused."""
        return self.background or ("white" if self.channels else None)


class Pixels(Protocol):
    """The images of a split, wherever they are stored; called from several threads at once."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows, (k,) int64 within the split, in the order given; (k, H, W, C) uint8, or a DataError."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetSplit:
    """One split of a data set: "train", "test", or as the files name it.

    Attributes:
        labels: (n,) uint32, class ids.
        groups: (n,) uint32, group ids; None: the data set has no group column.
        shape: of one image, (H, W, C).
        pixels: reads its images.
    """

    name: str
    labels: NDArray[np.uint32]
    groups: NDArray[np.uint32] | None = None
    shape: tuple[int, int, int]
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read (k, H, W, C) uint8, C-contiguous, for k rows in 0 .. n-1, in the order given; thread-safe.

        Raises:
            DataError: a row is outside the split, or its image cannot be read; names it.
        """
        rows = np.asarray(rows, np.int64)
        if len(outside := rows[(rows < 0) | (rows >= len(self))]):
            raise DataError(f"row {outside[0]} of {self.name} does not exist; it has rows 0 to {len(self) - 1}")
        if not len(rows):
            return np.empty((0, *self.shape), np.uint8)
        return np.ascontiguousarray(self.pixels.read(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images of one shape.

    Attributes:
        format: how it is stored: "built-in", "idx", "npz", "folder", "parquet".
        classes: names of the labels 0, 1, ...
        groups: names of the groups 0, 1, ...; empty: it has no group column.
        shape: of one image, (H, W, C).
        splits: by name, "train" first.
        background: what transparent pixels are composited on; None: it has none.
        own_digest: computes the digest where rows are stored in another order, or scale, than they are hashed in.
        path: of its file or folder; None: it is built in.
    """

    name: str
    format: str
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    shape: tuple[int, int, int]
    splits: Mapping[str, DatasetSplit]
    licence: str = ""
    background: Background | None = None
    own_digest: Callable[[], str] | None = None
    path: Path | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels and labels in order, independent of the format; reads every image the first time.

        What is hashed, split after split: pixels row-major; labels, one byte each, or four little-endian ones beyond
        256 classes; the same for groups. Then the names of classes and groups, unless they are the numbers 0, 1, ...

        Raises:
            DataError: rows cannot be read, and it names the first ones; or all pixels are 0 or 1.
        """
        if self.own_digest is not None:
            return self.own_digest()
        digest, largest = hashlib.sha256(), 0
        block = max(1, _HASH_BLOCK_BYTES // int(np.prod(self.shape)))
        for split in self.splits.values():
            for first in range(0, len(split), block):
                check_cancelled()
                rows = np.arange(first, min(first + block, len(split)), dtype=np.int64)
                try:
                    images = split.images(rows)
                except DataError as error:
                    raise _name_damaged_rows(split, first, error) from error.__cause__
                largest = max(largest, int(images.max()))
                digest.update(images.data)
            digest.update(_id_bytes(split.labels, len(self.classes)))
            if split.groups is not None:
                digest.update(_id_bytes(split.groups, len(self.groups)))
        if largest == 1:
            raise DataError(f"{self.path}: the largest pixel is 1, so every image is black; write pixels of 0 to 255")
        for names in (self.classes, self.groups):
            if names != tuple(map(str, range(len(names)))):
                digest.update("".join(f"{name}\n" for name in names).encode())
        return f"sha256:{digest.hexdigest()}"


def _name_damaged_rows(split: DatasetSplit, first: int, error: DataError) -> DataError:
    """Describe the first damaged rows of a split from row `first` on, which `error` is about, and count the others.

    A problem that recurs is that of a whole file, and is named alone.
    """
    problems: list[str] = []
    for row in range(first, len(split)):
        check_cancelled()
        try:
            split.images(np.array([row]))
        except DataError as problem:
            if str(problem) in problems or len(problems) == _COUNTED_ROWS:
                break
            problems.append(str(problem))
    if len(problems) < 2:
        return error
    count = f"at least {_COUNTED_ROWS - _NAMED_ROWS}" if len(problems) == _COUNTED_ROWS else len(problems) - _NAMED_ROWS
    others = f"; {count} more" if len(problems) > _NAMED_ROWS else ""
    return DataError("; ".join(problems[:_NAMED_ROWS]) + others)


def _id_bytes(ids: NDArray[np.uint32], count: int) -> bytes:
    return ids.astype(np.uint8 if count <= 256 else "<u4").tobytes()


@dataclass(frozen=True, kw_only=True)
class FileVersion:
    """A file with its size and modification time when it was first read, to detect later changes.

    A plan promises the same bytes for a row at all times, so a file that changed is refused. Reading a memory map
    beyond the end of a file that became shorter would also kill the process.
    """

    file: Path
    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """Record the current size and time; raise a DataError for what cannot be accessed or is no regular file."""
        check_cancelled()
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}; check path and permissions") from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{file} is not a regular file; give a file")
        return cls(file=file, size=found.st_size, modified_ns=found.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raise a DataError if the file changed, or was removed."""
        if FileVersion.of(self.file) != self:
            raise DataError(f"{self.file} changed after it was read; restore it, or restart the process that reads it")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPixels:
    """The images of an (n, H, W, C) uint8 array in memory, or mapped from a file of a version."""

    array: NDArray[np.uint8]
    version: FileVersion | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows; (k, H, W, C) uint8."""
        if self.version is not None:
            self.version.check_unchanged()
        return np.asarray(self.array[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyPixels:
    """The images of an (n, H, W, C) uint8 array that `load` decompresses when one is read for the first time.

    So whatever is refused without looking at pixels is refused before any are decompressed.
    """

    load: Callable[[], NDArray[np.uint8]]
    _lock: Lock = field(default_factory=Lock, init=False)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows; (k, H, W, C) uint8."""
        with self._lock:
            array = self._array
        return np.asarray(array[rows])

    @cached_property
    def _array(self) -> NDArray[np.uint8]:
        return self.load()


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedPixels:
    """The images of several parts, one after another; `counts` has the number of images of each."""

    parts: tuple[Pixels, ...]
    counts: tuple[int, ...]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows; (k, H, W, C) uint8."""
        ends = np.cumsum(self.counts)
        part_of_row = np.searchsorted(ends, rows, side="right")
        pieces = []
        for number in np.unique(part_of_row).tolist():
            positions = np.flatnonzero(part_of_row == number)
            pieces.append((positions, self.parts[number].read(rows[positions] - (ends[number] - self.counts[number]))))
        images = np.empty((len(rows), *pieces[0][1].shape[1:]), np.uint8)
        for positions, piece in pieces:
            images[positions] = piece
        return images


def read_into(stream: IO[bytes], array: NDArray[np.uint8]) -> int:
    """Read from a stream into a one-dimensional array until either ends; return the number of bytes read.

    A decompressor holds the interpreter while it copies what it decompressed, so small pieces keep other threads alive.
    """
    size = 0
    while size < len(array):
        check_cancelled()
        piece = stream.read(min(_PIECE_BYTES, len(array) - size))
        if not piece:
            break
        array[size : size + len(piece)] = np.frombuffer(piece, np.uint8)
        size += len(piece)
    return size


def check_content(start: bytes, where: str) -> None:
    """Raise a DataError for what is no data of any format, given the first bytes of a file: nothing, or a pointer."""
    if not start:
        raise DataError(f"{where} is empty (0 bytes); restore or remove it")
    if start.startswith(_LFS_POINTER):
        raise DataError(f"{where} is a pointer of Git LFS and not the file; run git lfs pull")


def state_of_files(path: Path) -> str:
    """Return a digest that changes when a file, or any file in a folder, changes, appears, goes or may be read."""
    digest = hashlib.sha256()
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in (".", *sorted(names)))
    for file in (path, *inside):
        check_cancelled()
        try:
            found = file.stat()
            state = f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        except OSError as error:
            state = str(error.errno)
        digest.update(b"%r %s\n" % (os.fsencode(file), state.encode()))
    return digest.hexdigest()
