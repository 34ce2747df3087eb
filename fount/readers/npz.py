"""Read NPZ: a zip of arrays, as numpy and Keras write them.

Arrays are named images, labels, groups, or x_train, y_train, x_test, y_test (and groups_train, groups_test). A stored
member is memory-mapped, a compressed one is decompressed once. Nothing is unpickled, and no array is allocated before
the shape in its header agrees with the size of the member.

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

from fount.readers.dataset import ArrayPixels, DataError, Dataset, DatasetSource, FileVersion
from fount.readers.image_decoder import fit_pixels
from fount.readers.validation import RawSplit, Values, build_dataset, check_size

__all__ = ["read_npz"]

_ARRAY_NAMES = (
    {"train": ("images", "labels", "groups")},
    {"train": ("x_train", "y_train", "groups_train"), "test": ("x_test", "y_test", "groups_test")},
)
"""Array names of images, labels and groups per split, in the two supported conventions."""

_DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error, NotImplementedError,
    ValueError,  # of a member that extends beyond the end of the file
)  # fmt: skip
_MAX_HEADER_BYTES = 4096  # those of images and labels take 128
_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of name and extra field
_LOCAL_HEADER_BYTES = 30

_CheckHeader = Callable[[tuple[int, ...], np.dtype[np.generic]], None]


def read_npz(source: DatasetSource, file: Path) -> Dataset:
    """Read a data set from one NPZ file."""
    version = FileVersion.of(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            return _read(_Npz(source=source, file=file, archive=archive, members=members, version=version))
    except _DAMAGED as error:
        raise DataError(f"{file} is a damaged NPZ file ({error}); write it again with numpy.savez") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: zipfile's error for encrypted members
        raise DataError(f"{file} cannot be read ({error}); check its permissions") from error


@dataclass(frozen=True, kw_only=True)
class _Npz:
    """An open file."""

    source: DatasetSource
    file: Path
    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    version: FileVersion


def _read(npz: _Npz) -> Dataset:
    layout = next((each for each in _ARRAY_NAMES if each["train"][0] in npz.members), None)
    if layout is None:
        found = f"{npz.file} holds {', '.join(sorted(npz.members))[:200] or 'nothing'}"
        raise DataError(f"{found}; name its arrays images and labels, or x_train, y_train, x_test and y_test")
    splits = [
        _read_split(npz, split, images, labels, _groups_name(npz, split, groups))
        for split, (images, labels, groups) in layout.items()
        if split == "train" or images in npz.members or labels in npz.members
    ]
    return build_dataset(npz.source, format="npz", splits=splits)


def _groups_name(npz: _Npz, split: str, default: str) -> str | None:
    """Find the array of a split's groups; None when there is none."""
    if not (group := npz.source.group):
        return default if default in npz.members else None
    name = group if group in npz.members else f"{group}_{split}"
    if name not in npz.members:
        found = f"{npz.file} has no array {group}; it has {', '.join(npz.members)}"
        raise DataError(f"{found}; name one of them as group")
    return name


def _read_split(npz: _Npz, split: str, images_name: str, labels_name: str, groups_name: str | None) -> RawSplit:
    if missing := [name for name in (images_name, labels_name) if name not in npz.members]:
        raise DataError(f"{npz.file} lacks the array {missing[0]}; add it")

    def check(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        _check_images(f"{npz.file}, {images_name}", shape, dtype)
        check_size(npz.source, shape[0], shape[1:])

    array, is_mapped = _read_member(npz, images_name, check)
    labels = _read_column(npz, labels_name)
    groups = None if groups_name is None else _read_column(npz, groups_name)
    for name, column in ((labels_name, labels), (groups_name, groups)):
        if column is not None and len(column) != len(array):
            found = f"{npz.file} holds {len(array)} images in {images_name} and {len(column)} values in {name}"
            raise DataError(f"{found}; the counts must be equal")
    images = array.view(np.uint8)  # for the type checker: it is uint8 already
    if images.ndim == 3:
        images = images[..., None]  # (n, H, W) -> (n, H, W, 1)
    pixels = ArrayPixels(array=images, version=npz.version if is_mapped else None)
    _, height, width, channels = images.shape
    where = f"{npz.file}, {images_name}"
    fitted, shape = fit_pixels(npz.source, pixels, (height, width, channels), lambda row: f"{where}, row {row}")
    return RawSplit(
        name=split,
        pixels=fitted,
        shape=shape,
        labels=labels,
        groups=groups,
        where=lambda row: f"{npz.file}, {labels_name}, row {row}",
    )


def _check_images(where: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype.kind == "f":
        raise DataError(f"{where}: pixels are {dtype}, of unknown scale and perhaps NaN; write uint8, 0 to 255")
    if dtype != np.uint8:
        raise DataError(f"{where}: pixels are {dtype}; write uint8, 0 to 255")
    if len(shape) not in (3, 4):
        raise DataError(f"{where}: the shape is {shape}; images are (n, H, W) or (n, H, W, C)")
    if len(shape) == 4 and not 1 <= shape[3] <= 4:
        raise DataError(f"{where}: the shape is {shape}; channels come last, and are 1 to 4")


def _read_column(npz: _Npz, name: str) -> Values:
    """Read labels or groups: whole numbers, or names."""

    def check(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise DataError(f"{npz.file}, {name}: the shape is {shape}; write one value per row")
        if dtype.kind not in "iuU" or not dtype.itemsize:
            raise DataError(f"{npz.file}, {name}: values are {dtype}; write whole numbers, or names as unicode")

    column, _ = _read_member(npz, name, check)
    column = column.reshape(-1)  # Keras writes (n, 1)
    if column.dtype.kind == "U":
        return [str(value) for value in column]
    if column.dtype == np.uint64 and len(column) and column.max() > np.iinfo(np.int64).max:
        found = f"{npz.file}, {name}, row {int(column.argmax())} has the value {column.max()}"
        raise DataError(f"{found}; correct the row")
    return column.astype(np.int64)


def _read_member(npz: _Npz, name: str, check: _CheckHeader) -> tuple[NDArray[np.generic], bool]:
    """Read one array after `check` accepted its header; True when it is memory-mapped."""
    member, where, limit = npz.members[name], f"{npz.file}, {name}", npz.source.limits.max_bytes
    if member.file_size > limit + _MAX_HEADER_BYTES:
        found = f"{where}: announces {member.file_size} bytes, and at most {limit} are read"
        raise DataError(f"{found}; split the data set, or raise max_bytes")
    with npz.archive.open(member) as stream:
        start = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    try:
        shape, is_fortran, dtype = _read_header(start)
    except Exception as error:  # numpy evaluates the header as a literal, which fails in many ways
        found = f"{where}: not a supported array ({str(error)[:100]})"
        raise DataError(f"{found}; write it again with numpy.savez") from error
    if dtype.hasobject or is_fortran:
        what = "holds Python objects" if dtype.hasobject else "is in Fortran order"
        raise DataError(f"{where}: {what}; write an ordinary array with numpy.ascontiguousarray")
    check(shape, dtype)
    size, offset = math.prod(shape), start.tell()
    if size * dtype.itemsize != member.file_size - offset:
        announced = f"its header announces {' × '.join(map(str, shape))} {dtype}"
        found = f"{where}: {announced}, {member.file_size - offset} bytes follow"
        raise DataError(f"{found}; write it again with numpy.savez")
    if member.compress_type == zipfile.ZIP_STORED and size:
        return np.memmap(npz.file, dtype, "r", _data_offset(npz.file, member) + offset, shape), True
    with npz.archive.open(member) as stream:
        return np.frombuffer(stream.read()[offset:], dtype).reshape(shape), False


def _read_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read the shape, whether it is in Fortran order, and the type; the stream ends up at the first element."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, is_fortran and len(shape) > 1, dtype


def _data_offset(file: Path, member: zipfile.ZipInfo) -> int:
    """Find where a stored member's bytes begin: after its local header, whose lengths may differ from the directory."""
    with file.open("rb") as stream:
        stream.seek(member.header_offset)
        name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER_BYTES))
    return int(member.header_offset + _LOCAL_HEADER_BYTES + name + extra)
