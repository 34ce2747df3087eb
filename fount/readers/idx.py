"""Read IDX, the format MNIST is distributed in: a magic number, the dimensions, then bytes; plain or gzip.

A plain file is memory-mapped. The header announces how much must follow, and of a gzip file no more than that and one
byte is decompressed, so a small file that expands into gigabytes is refused by its header or its first surplus byte.
Pixels are decompressed when one is read, after everything else of all files was checked.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from fount.readers.dataset import (
    ArrayPixels,
    DataError,
    Dataset,
    DatasetSource,
    FileVersion,
    LazyPixels,
    Pixels,
    check_content,
    read_into,
)
from fount.readers.image_decoder import fit_pixels
from fount.readers.layout import inner_folders, only_folder
from fount.readers.validation import RawSplit, build_dataset, check_sizes

__all__ = ["MAX_IDX_BYTES", "find_idx", "idx_folder", "read_idx", "read_idx_folder"]

MAX_IDX_BYTES = 2**28
"""The default limit for what one file may announce: five times MNIST."""

_UNSIGNED_BYTE = 0x08
_START_BYTES = 64
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_EXPANSION = 1032  # the most bytes that deflate can make from one
_TRAINING_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_OTHER_FILES = f"?*-{_TRAINING_FILES[0]}*"  # of EMNIST
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
"""The file name prefixes of each split."""


def read_idx_folder(source: DatasetSource, folder: Path) -> Dataset:
    """Read the files of MNIST and similar sets: PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte."""
    folder = idx_folder(folder) or folder
    pairs = {split: files for split, prefixes in _PREFIXES.items() if (files := _find_pair(folder, prefixes))}
    if "train" not in pairs:
        raise DataError(f"{folder} lacks {' and '.join(_TRAINING_FILES)}; put both there, plain or .gz")
    limits = source.limits
    opened = {
        split: (_open_file(images, 3, limits.max_bytes), _open_file(labels, 1, limits.max_rows))
        for split, (images, labels) in pairs.items()
    }
    check_sizes(source, [(len(images), images.shape[1:]) for images, _ in opened.values() if len(images)])
    return build_dataset(
        source, format="idx", splits=[_describe_split(source, split, *files) for split, files in opened.items()]
    )


def find_idx(folder: Path, name: str) -> Path | None:
    """Find a file by name, like train-images-idx3-ubyte or train-images.idx3-ubyte, plain or with .gz; None: absent."""
    names = (f"{spelling}{suffix}" for spelling in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz"))
    return next((folder / each for each in names if (folder / each).is_file()), None)


def idx_folder(path: Path) -> Path | None:
    """Find the folder of the training files: the path, a folder in it, or the folder raw in that; None: there is none.

    Raises:
        DataError: there are several, so that none is meant.
    """
    if _has_idx(path):
        return path
    inner = inner_folders(path)
    if other := next((file for folder in (path, *inner) for file in sorted(folder.glob(_OTHER_FILES))), None):
        end = other.name[other.name.index(_TRAINING_FILES[0]) :]
        raise DataError(
            f"{other} is not called as MNIST's files are; rename it to {end}, and its labels and test likewise"
        )
    found = [folder for folder in inner if _has_idx(folder)]
    return only_folder(path, found or [raw for folder in inner if _has_idx(raw := folder / "raw")], "IDX")


def _has_idx(folder: Path) -> bool:
    return any(find_idx(folder, name) for name in _TRAINING_FILES)


def _find_pair(folder: Path, prefixes: tuple[str, ...]) -> tuple[Path, Path] | None:
    for prefix in prefixes:
        names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        images, labels = (find_idx(folder, name) for name in names)
        if images and labels:
            return images, labels
        if images or labels:
            raise DataError(f"{folder} lacks {names[1] if images else names[0]}; put it there, plain or .gz")
    return None


def _describe_split(source: DatasetSource, name: str, images: _IdxFile, labels: _IdxFile) -> RawSplit:
    if len(images) != len(labels) or not len(labels):
        counts = f"{images.file} holds {len(images)} images and {labels.file} {len(labels)} labels"
        raise DataError(f"{counts}; the counts must be equal and not 0; use the files of one download")
    height, width = images.shape[1:]
    fitted, shape = fit_pixels(source, _pixels(images), (height, width, 1), lambda row: f"{images.file}, row {row}")
    return RawSplit(
        name=name,
        pixels=fitted,
        shape=shape,
        labels=labels.read().astype(np.int64),
        where=lambda row: f"{labels.file}, row {row}",
    )


def _pixels(images: _IdxFile) -> Pixels:
    if images.is_gzip:
        return LazyPixels(load=lambda: images.read()[..., None])  # (n, H, W) -> (n, H, W, 1)
    return ArrayPixels(array=images.read()[..., None], version=images.version)


def read_idx(file: Path, dimensions: int, max_bytes: int = MAX_IDX_BYTES) -> NDArray[np.uint8]:
    """Read one file of unsigned bytes, plain or gzip; a plain file is memory-mapped.

    Args:
        file: detected by content.
        dimensions: the required number: 3 for images, 1 for labels.
        max_bytes: the most its header may announce.

    Returns:
        uint8 of the shape in its header, read-only.
    """
    return _open_file(file, dimensions, max_bytes).read()


@dataclass(frozen=True, kw_only=True)
class _IdxFile:
    """A file whose header was read; `offset` is that of the first element in what is decompressed."""

    version: FileVersion
    is_gzip: bool
    shape: tuple[int, ...]
    offset: int

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def file(self) -> Path:
        return self.version.file

    def read(self) -> NDArray[np.uint8]:
        """Decompress the elements, or map them."""
        self.version.check_unchanged()
        if not self.is_gzip:
            if not math.prod(self.shape):  # an empty file region cannot be mapped
                return np.empty(self.shape, np.uint8)
            return np.memmap(self.file, np.uint8, "r", self.offset, self.shape)
        elements = np.empty(math.prod(self.shape), np.uint8)
        with _opened(self.file) as (_, stream):
            stream.read(self.offset)
            found = read_into(stream, elements)
            # One byte more than is announced: it shows a surplus, and makes gzip verify its checksum.
            _check_length(self.file, self.shape, found + len(stream.read(1)))
        elements.flags.writeable = False
        return elements.reshape(self.shape)


def _open_file(file: Path, dimensions: int, max_bytes: int) -> _IdxFile:
    """Read the header, and check that the file can hold what it announces; nothing else is decompressed."""
    version = FileVersion.of(file)
    with _opened(file) as (is_gzip, stream):
        shape, offset = _read_header(file, stream, dimensions, max_bytes), stream.tell()
    if not is_gzip:
        _check_length(file, shape, version.size - offset)
    elif math.prod(shape) > version.size * _MAX_EXPANSION:
        announced = f"its header announces {' × '.join(map(str, shape))} bytes"
        raise DataError(f"{file} ends early: {announced}, too many for {version.size} of gzip; download it again")
    return _IdxFile(version=version, is_gzip=is_gzip, shape=shape, offset=offset)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[bool, IO[bytes]]]:
    """Open a file, decompressed; whether it is gzip, and the stream. Faults within the block become a `DataError`."""
    try:
        with file.open("rb") as raw:
            is_gzip = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            with cast(IO[bytes], gzip.open(raw) if is_gzip else raw) as stream:
                yield is_gzip, stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is a damaged gzip file ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}; check its permissions") from error


def _check_length(file: Path, shape: tuple[int, ...], found: int) -> None:
    if found != (size := math.prod(shape)):
        what, follow = ("ends early", found) if found < size else ("continues after its end", "more")
        announced = f"its header announces {' × '.join(map(str, shape))} bytes"
        raise DataError(f"{file} {what}: {announced}, {follow} follow; download it again")


def _read_header(file: Path, stream: IO[bytes], dimensions: int, max_bytes: int) -> tuple[int, ...]:
    """Read the magic number and the dimensions.

    Magic is 0, 0, the element type, the number of dimensions; each dimension is a big-endian 32-bit number.
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != magic:
        check_content(header + stream.read(_START_BYTES), str(file))
        raise DataError(
            f"{file} begins with {header[:4].hex(' ') or 'nothing'}; an IDX file of bytes with {dimensions} dimension"
            f"{'s' * (dimensions > 1)} begins with {magic.hex(' ')}; use the right file"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{file} ends within its header; download it again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if math.prod(max(1, size) for size in shape) > max_bytes:  # max: 0 images of an absurd size are refused too
        announced = f"announces {' × '.join(map(str, shape))} bytes, more than the {max_bytes} that are read"
        raise DataError(f"{file} {announced}; use the right file")
    return shape
