"""NPZ: a zip of arrays, as numpy and Keras write them.

Images and labels are named images, labels, groups, or x_train, y_train, x_test, y_test (and groups_train, groups_test).
A member that is stored is mapped into memory, one that is compressed is unpacked once. Nothing is unpickled, and no
array is made before the header's shape agrees with the member's size.

Source: NumPy, NEP 1 (the .npy format); PKWARE, APPNOTE.TXT, section 4.3.7 (the local file header).
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fount.readers.assemble import Part, Values, assemble, check_amount
from fount.readers.dataset import ArrayPixels, DataError, Dataset, FileStamp
from fount.readers.decode import fitted
from fount.readers.source import DatasetSource

__all__ = ["read_npz"]

_LAYOUTS = (
    {"train": ("images", "labels", "groups")},
    {
        "train": ("x_train", "y_train", "groups_train"),
        "test": ("x_test", "y_test", "groups_test"),
    },
)
"""Names of images, labels and groups of each split, in the two ways they are called."""

_DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error, NotImplementedError,
    ValueError,  # of a member that goes on beyond the end of the file
)  # fmt: skip
_HEADER_MOST = 4096  # bytes; those of images and labels take 128
_LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of name and extra field, which end it
_LOCAL_HEADER_BYTES = 30


def read_npz(source: DatasetSource, file: Path) -> Dataset:
    """Read a data set from one NPZ file.

    Raises:
        DataError: arrays are missing, damaged, of another type or shape, or do not belong together.
    """
    stamp = FileStamp.of(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            npz = _Npz(file=file, archive=archive, members=members, stamp=stamp, most_bytes=source.limits.max_bytes)
            return _read(source, npz)
    except _DAMAGED as error:
        raise DataError(f"{file} is a damaged NPZ file ({error}); write it again with numpy.savez") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: zipfile's word for encrypted
        raise DataError(f"{file} cannot be read ({error}); check its permissions") from error


@dataclass(frozen=True, kw_only=True)
class _Npz:
    """An open file."""

    file: Path
    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    stamp: FileStamp
    most_bytes: int


def _read(source: DatasetSource, npz: _Npz) -> Dataset:
    layout = next((each for each in _LAYOUTS if each["train"][0] in npz.members), None)
    if layout is None:
        told = f"{npz.file} holds {', '.join(sorted(npz.members))[:200] or 'nothing'}"
        raise DataError(f"{told}; name its arrays images and labels, or x_train, y_train, x_test and y_test")
    parts, shapes = [], []
    for split, (images, labels, groups) in layout.items():
        if split == "train" or images in npz.members or labels in npz.members:
            part, shape = _read_part(source, npz, split, (images, labels, _groups_name(source, npz, split, groups)))
            parts.append(part)
            shapes.append(shape)
    if len(set(shapes)) > 1:
        told = " and ".join("×".join(map(str, shape)) for shape in shapes)
        raise DataError(f"{npz.file} holds images of {told}; set size and channels, or make them equal")
    return assemble(source, kind="npz", shape=shapes[0], parts=parts)


def _groups_name(source: DatasetSource, npz: _Npz, split: str, usual: str) -> str:
    """The array of a split's groups; empty when there is none."""
    if not source.group:
        return usual if usual in npz.members else ""
    name = source.group if source.group in npz.members else f"{source.group}_{split}"
    if name not in npz.members:
        raise DataError(f"{npz.file} has no array {source.group}, which group names; it has {', '.join(npz.members)}")
    return name


def _read_part(
    source: DatasetSource, npz: _Npz, split: str, names: tuple[str, str, str]
) -> tuple[Part, tuple[int, int, int]]:
    images_name, labels_name, groups_name = names
    if missing := [name for name in (images_name, labels_name) if name not in npz.members]:
        raise DataError(f"{npz.file} lacks the array {missing[0]}; add it")
    read, mapped = _read_member(npz, images_name, lambda shape, dtype: _check_images(source, npz, names, shape, dtype))
    labels = _read_column(npz, labels_name)
    groups = _read_column(npz, groups_name) if groups_name else None
    for name, column in ((labels_name, labels), (groups_name, groups)):
        if column is not None and len(column) != len(read):
            told = f"{npz.file} holds {len(read)} images in {images_name} and {len(column)} values in {name}"
            raise DataError(f"{told}; they must be as many")
    images = read.view(np.uint8)  # which it is, and now the types know
    if images.ndim == 3:
        images = images[..., None]  # (n, H, W) -> (n, H, W, 1)
    pixels = ArrayPixels(array=images, stamp=npz.stamp if mapped else None)
    _, height, width, channels = images.shape
    shaped, shape = fitted(
        source, pixels, (height, width, channels), lambda row: f"{npz.file}, {images_name}, row {row}"
    )
    return Part(
        name=split,
        pixels=shaped,
        labels=labels,
        groups=groups,
        where=lambda row: f"{npz.file}, {labels_name}, row {row}",
    ), shape


def _check_images(
    source: DatasetSource, npz: _Npz, names: tuple[str, str, str], shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> None:
    told = f"{npz.file}, {names[0]}"
    if dtype.kind == "f":
        raise DataError(f"{told}: pixels are {dtype}, of unknown scale and perhaps NaN; write uint8, 0 to 255")
    if dtype != np.uint8:
        raise DataError(f"{told}: pixels are {dtype}; write uint8, 0 to 255")
    if len(shape) not in (3, 4):
        raise DataError(f"{told}: the shape is {shape}; images are (n, H, W) or (n, H, W, C)")
    if len(shape) == 4 and not 1 <= shape[3] <= 4:
        raise DataError(f"{told}: the shape is {shape}; channels come last, and are 1 to 4")
    check_amount(source, shape[0], shape[1:])


def _read_column(npz: _Npz, name: str) -> Values:
    """Labels or groups: whole numbers, or names."""

    def check(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise DataError(f"{npz.file}, {name}: the shape is {shape}; write one value a row")
        if dtype.kind not in "iuU" or not dtype.itemsize:
            raise DataError(f"{npz.file}, {name}: values are {dtype}; write whole numbers, or names as unicode")

    column, _ = _read_member(npz, name, check)
    column = column.reshape(-1)  # Keras writes (n, 1)
    if column.dtype.kind == "U":
        return [str(value) for value in column]
    if column.dtype == np.uint64 and len(column) and column.max() > np.iinfo(np.int64).max:
        raise DataError(f"{npz.file}, {name}, row {int(column.argmax())} has the value {column.max()}; mend the row")
    return column.astype(np.int64)


def _read_member(
    npz: _Npz, name: str, check: Callable[[tuple[int, ...], np.dtype[np.generic]], None]
) -> tuple[NDArray[np.generic], bool]:
    """Read one array, whose header `check` has passed; True when it is mapped rather than read."""
    member = npz.members[name]
    if member.file_size > npz.most_bytes + _HEADER_MOST:
        told = f"{npz.file}, {name}: announces {member.file_size} bytes, and {npz.most_bytes} are read at most"
        raise DataError(f"{told}; cut the data set, or raise max_bytes")
    with npz.archive.open(member) as stream:
        try:
            shape, fortran, dtype = _read_header(io.BytesIO(stream.read(_HEADER_MOST)))
        except Exception as error:  # numpy evaluates the header as a literal, which fails in many ways
            raise DataError(f"{npz.file}, {name}: no array that is read here ({str(error)[:100]}); write it again with "
                            "numpy.savez") from error  # fmt: skip
    if dtype.hasobject or fortran:
        what = "holds Python objects" if dtype.hasobject else "is in Fortran order"
        raise DataError(f"{npz.file}, {name}: {what}; write an ordinary array with numpy.ascontiguousarray")
    check(shape, dtype)
    size = math.prod(shape)
    offset = _header_size(npz, member)
    if size * dtype.itemsize != member.file_size - offset:
        told = f"its header announces {' × '.join(map(str, shape))} {dtype}, {member.file_size - offset} bytes follow"
        raise DataError(f"{npz.file}, {name}: {told}; write it again with numpy.savez")
    if member.compress_type == zipfile.ZIP_STORED and size:
        begin = _data_offset(npz.file, member) + offset
        return np.memmap(npz.file, dtype, "r", begin, shape), True
    with npz.archive.open(member) as stream:
        return np.frombuffer(stream.read()[offset:], dtype).reshape(shape), False


def _read_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream, max_header_size=_HEADER_MOST)
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran and len(shape) > 1, dtype


def _header_size(npz: _Npz, member: zipfile.ZipInfo) -> int:
    with npz.archive.open(member) as stream:
        begun = io.BytesIO(stream.read(_HEADER_MOST))
    _read_header(begun)
    return begun.tell()


def _data_offset(file: Path, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header, whose lengths may differ from the directory's."""
    with file.open("rb") as stream:
        stream.seek(member.header_offset)
        name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER_BYTES))
    return int(member.header_offset + _LOCAL_HEADER_BYTES + name + extra)
