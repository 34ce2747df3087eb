"""IDX, the format MNIST is distributed in: a magic number, the dimensions, then bytes; plain or inside gzip.

A plain file is mapped into memory. The header says how much must follow, so of a gzip file no more than that and one
byte is ever decompressed: a small file that unfolds into gigabytes is refused by its header or its first surplus byte.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fount.readers.assemble import Part, assemble, check_amount
from fount.readers.dataset import ArrayPixels, DataError, Dataset, FileStamp
from fount.readers.decode import fitted
from fount.readers.source import DatasetSource

__all__ = ["IDX_MOST_BYTES", "find_idx", "read_idx", "read_idx_folder"]

IDX_MOST_BYTES = 2**28
"""Values that one file may announce unless more are allowed: five times MNIST."""

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_SPLITS = {"train": ("train",), "test": ("t10k", "test")}
"""The beginnings of the file names of each split."""


def read_idx_folder(source: DatasetSource, folder: Path) -> Dataset:
    """Read the files of MNIST and those like it: PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte.

    Raises:
        DataError: files are missing or damaged, or do not belong together.
    """
    parts, shapes = [], []
    for name, prefixes in _SPLITS.items():
        files = _find_pair(folder, prefixes)
        if files is None and name == "train":
            wanted = "train-images-idx3-ubyte and train-labels-idx1-ubyte"
            raise DataError(f"{folder} lacks {wanted}; put both there, plain or .gz")
        if files is not None:
            part, shape = _read_part(source, name, *files)
            parts.append(part)
            shapes.append(shape)
    if len(set(shapes)) > 1:
        told = " and ".join("×".join(map(str, shape[:2])) for shape in shapes)
        raise DataError(f"{folder} holds images of {told} pixels; set size, or put files of one data set there")
    return assemble(source, kind="idx", shape=shapes[0], parts=parts)


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of a name, plain or with .gz; None when neither is there."""
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _find_pair(folder: Path, prefixes: tuple[str, ...]) -> tuple[Path, Path] | None:
    for prefix in prefixes:
        names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        images, labels = (find_idx(folder, name) for name in names)
        if images and labels:
            return images, labels
        if images or labels:
            raise DataError(f"{folder} lacks {names[1] if images else names[0]}; put it there, plain or .gz")
    return None


def _read_part(
    source: DatasetSource, name: str, images_file: Path, labels_file: Path
) -> tuple[Part, tuple[int, int, int]]:
    stamp = FileStamp.of(images_file)
    images = read_idx(images_file, 3, source.limits.max_bytes)
    labels = read_idx(labels_file, 1, source.limits.max_rows)
    if len(images) != len(labels) or not len(labels):
        counts = f"{images_file} holds {len(images)} pictures and {labels_file} {len(labels)} labels"
        raise DataError(f"{counts}; they must be as many, and some; put files of one download there")
    check_amount(source, len(images), images.shape[1:])
    pixels = ArrayPixels(array=images[..., None], stamp=stamp if isinstance(images, np.memmap) else None)
    shaped, shape = fitted(source, pixels, (*images.shape[1:], 1), lambda row: f"{images_file}, row {row}")
    ids = labels.astype(np.int64)
    return Part(name=name, pixels=shaped, labels=ids, where=lambda row: f"{labels_file}, row {row}"), shape


def read_idx(file: Path, dimensions: int, most_bytes: int = IDX_MOST_BYTES) -> NDArray[np.uint8]:
    """Read one file of unsigned bytes.

    Args:
        file: plain or gzip, told apart by content.
        dimensions: how many it must have: 3 for images, 1 for labels.
        most_bytes: what it may announce.

    Returns:
        uint8 of the shape its header says, read-only; a memory map of a plain file.

    Raises:
        DataError: it cannot be read, is no such IDX file, or holds fewer or more bytes than its header announces.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not packed:
                return _map(file, raw, dimensions, most_bytes)
            with gzip.open(raw) as stream:
                return _unpack(file, stream, dimensions, most_bytes)  # type: ignore[arg-type]  # it needs read() alone
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is a damaged gzip file ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}; check its permissions") from error


def _map(file: Path, stream: IO[bytes], dimensions: int, most_bytes: int) -> NDArray[np.uint8]:
    shape = _read_header(file, stream, dimensions, most_bytes)
    offset = stream.tell()
    _check_size(file, shape, stream.seek(0, 2) - offset)
    if not math.prod(shape):
        return np.empty(shape, np.uint8)  # nothing can be mapped
    return np.memmap(file, np.uint8, "r", offset, shape)


def _unpack(file: Path, stream: IO[bytes], dimensions: int, most_bytes: int) -> NDArray[np.uint8]:
    shape = _read_header(file, stream, dimensions, most_bytes)
    data = stream.read(math.prod(shape) + 1)  # the byte too many also makes gzip verify its checksum
    _check_size(file, shape, len(data))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _check_size(file: Path, shape: tuple[int, ...], found: int) -> None:
    size = math.prod(shape)
    if found != size:
        what = "ends early" if found < size else "goes on after its end"
        told = f"its header announces {' × '.join(map(str, shape))} bytes"
        raise DataError(f"{file} {what}: {told}, {'more' if found > size else found} follow; download it again")


def _read_header(file: Path, stream: IO[bytes], dimensions: int, most_bytes: int) -> tuple[int, ...]:
    """Read the magic number and the dimensions.

    Magic is 0, 0, the element type, the number of dimensions; each dimension is a big-endian 32-bit number.
    """
    wanted = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != wanted:
        raise DataError(
            f"{file} begins with {header[:4].hex(' ') or 'nothing'}; an IDX file of bytes with {dimensions} dimension"
            f"{'s' * (dimensions > 1)} begins with {wanted.hex(' ')}; put the right file there"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{file} ends within its header; download it again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if math.prod(max(1, size) for size in shape) > most_bytes:  # no array is 0 of something beyond all bounds, either
        told = f"announces {' × '.join(map(str, shape))} bytes, more than the {most_bytes} that are read"
        raise DataError(f"{file} {told}; put the right file there")
    return shape
