"""Read NPZ: a zip of arrays, as numpy and Keras write them.

Arrays are named images, labels, groups, or x_train, y_train, x_test, y_test (and groups_train, groups_test); classes
has the names of the labels 0, 1, ... Files of `fount pull`, several as one data set, and `fount sample` are read. A
stored member is memory-mapped; a compressed one is decompressed when an image is read, after all else was checked.
Nothing is unpickled, and no array is allocated before the shape in its header agrees with the size of the member.

Source: NumPy, NEP 1 (the .npy format); PKWARE, APPNOTE.TXT, section 4.3.7 (the local file header).
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fount.readers.dataset import (
    ArrayPixels,
    DataError,
    Dataset,
    DatasetSource,
    FileVersion,
    JoinedPixels,
    LazyPixels,
    Pixels,
    check_content,
    read_into,
)
from fount.readers.image_decoder import fit_pixels
from fount.readers.split_files import split_files
from fount.readers.validation import RawSplit, Values, build_dataset, check_size, check_sizes, join_values

__all__ = ["ArrayRows", "read_npz", "read_rows"]

_OBJECT_ARRAY = "is an array of Python objects, which would have to be unpickled"


class _Names(NamedTuple):
    """The names of the arrays of a split; `group_names`, where there is such an array, names the ids in `groups`."""

    images: str
    labels: str
    groups: str
    group_names: str = ""


_LAYOUTS: tuple[Mapping[str, _Names], ...] = (
    {"train": _Names("images", "labels", "groups")},
    {"train": _Names("images", "label", "group", group_names="groups")},
    {"train": _Names("samples", "labels", "groups")},
    {"train": _Names("x_train", "y_train", "groups_train"), "test": _Names("x_test", "y_test", "groups_test")},
)
"""The splits of a file in the supported conventions; the second is of `fount pull`, the third of `fount sample`."""

_CLASS_NAMES = "classes"
_LABELS = ("labels", "label")
_PART_OF_EXPORT = re.compile(r"-\d{5}-of-\d{5}$")
_DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error, NotImplementedError,
    ValueError,  # of a member that extends beyond the end of the file
)  # fmt: skip
_MAX_HEADER_BYTES = 4096  # those of images and labels take 128
_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of name and extra field
_LOCAL_HEADER_BYTES = 30
_START_BYTES = 64

_CheckHeader = Callable[[tuple[int, ...], np.dtype[Any]], None]


def read_npz(source: DatasetSource, path: Path) -> Dataset:
    """Read a data set from one NPZ file, or from a folder of them whose names begin with their split."""
    files = split_files(path, ".npz")
    if not files:
        raise DataError(f"{path} holds no .npz file; give the folder that does")
    first = files["train"][0]
    if len(files["train"]) > 1 and not (first.name.lower().startswith("train") or _PART_OF_EXPORT.search(first.stem)):
        found = f"{path} holds several NPZ files, which may be several data sets"
        raise DataError(f"{found}; name them train-….npz and test-….npz, or give {first} as the path")
    parts = [
        part
        for split, found in files.items()
        for file in found
        for part in _read_file(source, file, None if path.is_file() else split)
    ]
    check_sizes(source, [(part.rows, part.shape) for part in parts if part.rows])
    if different := next((part for part in parts if part.names != parts[0].names), None):
        raise DataError(f"{different.file} names other classes or groups than {parts[0].file}; make them alike")
    by_split = {each.split: [part for part in parts if part.split == each.split] for each in parts}
    class_names, group_names = parts[0].names
    return build_dataset(
        source,
        format="npz",
        splits=[_join(source, split, found) for split, found in by_split.items()],
        class_names=class_names,
        group_names=group_names,
    )


class ArrayRows(NamedTuple):
    """(N, ...) rows of an array, the labels of the file if it has any, and the names of these."""

    values: NDArray[Any]
    labels: Values | None
    classes: tuple[str, ...]


def read_rows(file: Path, names: Sequence[str], most: int, *, floats: bool = False) -> ArrayRows:
    """Read the first rows, at most `most`, of the array that has one of the names, or is the only one of a file.

    Pictures are (N, H, W) or (N, H, W, C) uint8; with `floats`, an array of floats may have any shape.
    """
    version = FileVersion.of(file)
    with _opened(file) as archive:
        npz = _Npz(source=DatasetSource(name=file.stem, path=file), archive=archive, version=version)
        members = list(npz.members)
        name = next((name for name in [*names, *members[: len(members) == 1]] if name in members), None)
        if name is None:
            raise DataError(f"{file} holds {', '.join(members)[:200] or 'nothing'}; name the array of rows {names[0]}")

        def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
            if not floats or dtype.kind != "f" or not shape:
                _check_images(f"{file}, {name}", shape, dtype)

        member = _describe_member(npz, name, check)
        labels = next((_read_column(npz, each, (name, member.shape[0])) for each in _LABELS if each in members), None)
        classes = _read_names(npz, _CLASS_NAMES)
    return ArrayRows(np.array(member.read()[:most]), None if labels is None else labels[:most], classes)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The rows of a split in one file.

    Attributes:
        shape: of one image, (H, W, C).
        names: of classes and of groups; empty where the file has none.
    """

    file: Path
    split: str
    arrays: _Names
    shape: tuple[int, int, int]
    pixels: Pixels
    labels: Values
    groups: Values | None
    names: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def rows(self) -> int:
        return len(self.labels)


def _join(source: DatasetSource, split: str, parts: Sequence[_Part]) -> RawSplit:
    if other := next((part for part in parts if part.shape != parts[0].shape), None):
        sizes = " and ".join("×".join(map(str, part.shape)) for part in (parts[0], other))
        raise DataError(f"{other.file} and {parts[0].file} hold images of {sizes}; make them equal")
    groups = [part.groups for part in parts if part.groups is not None]
    if groups and len(groups) < len(parts):
        raise DataError(f"{source.path}: some files have groups, some do not; make them alike")
    pixels = JoinedPixels(parts=tuple(part.pixels for part in parts), counts=tuple(part.rows for part in parts))
    ends = np.cumsum(pixels.counts)

    def where(row: int, what: str) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        return f"{parts[number].file}, {what}, row {row - int(ends[number] - pixels.counts[number])}"

    images, labels, *_ = parts[0].arrays
    whole = pixels if len(parts) > 1 else parts[0].pixels
    fitted, shape = fit_pixels(source, whole, parts[0].shape, lambda row: where(row, images))
    return RawSplit(
        name=split,
        pixels=fitted,
        shape=shape,
        labels=join_values(source, [part.labels for part in parts]),
        groups=join_values(source, groups) if groups else None,
        where=lambda row: where(row, labels),
    )


def _read_file(source: DatasetSource, file: Path, split: str | None) -> list[_Part]:
    """Read everything of a file but its images; `split` is the one it belongs to, None: as its arrays say."""
    version = FileVersion.of(file)
    with _opened(file) as archive:
        npz = _Npz(source=source, archive=archive, version=version)
        members = npz.members
        layout = next((each for each in _LAYOUTS if {each["train"].images, each["train"].labels} <= set(members)), None)
        layout = layout or next((each for each in _LAYOUTS if each["train"].images in members), None)
        if layout is None:
            found = f"{file} holds {', '.join(sorted(members))[:200] or 'nothing'}"
            raise DataError(f"{found}; name its arrays images and labels, or x_train, y_train, x_test and y_test")
        if split is not None and len(layout) > 1:
            raise DataError(f"{file} holds several splits, in a folder of files; give the file alone")
        return [
            _read_part(npz, split or name, names)
            for name, names in layout.items()
            if name == "train" or names.images in members or names.labels in members
        ]


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a file; what zipfile raises within the block becomes a `DataError`."""
    try:
        with file.open("rb") as start:
            beginning = start.read(_START_BYTES)
            check_content(beginning, str(file))
            if beginning.startswith(npy.MAGIC_PREFIX):
                raise DataError(f"{file} is a single array; write it with numpy.savez, as images, with its labels")
        with zipfile.ZipFile(file) as archive:
            yield archive
    except _DAMAGED as error:
        raise DataError(f"{file} is a damaged NPZ file ({error}); write it again with numpy.savez") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: zipfile's error for encrypted members
        raise DataError(f"{file} cannot be read ({error}); check its permissions") from error


@dataclass(frozen=True, kw_only=True)
class _Npz:
    """An open file."""

    source: DatasetSource
    archive: zipfile.ZipFile
    version: FileVersion

    @cached_property
    def members(self) -> dict[str, zipfile.ZipInfo]:
        """The arrays by name."""
        return {name.removesuffix(".npy"): self.archive.getinfo(name) for name in self.archive.namelist()}

    @property
    def file(self) -> Path:
        return self.version.file


@dataclass(frozen=True, kw_only=True)
class _Member:
    """An array whose header was read, and agrees with the size of the member; `offset` is that of its first element."""

    version: FileVersion
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def is_mapped(self) -> bool:
        return self.member.compress_type == zipfile.ZIP_STORED and 0 not in self.shape

    def read(self) -> NDArray[Any]:
        """Map a stored array, and decompress another."""
        self.version.check_unchanged()
        file = self.version.file
        if self.is_mapped:
            return np.memmap(file, self.dtype, "r", _data_offset(file, self.member) + self.offset, self.shape)
        elements = np.empty(self.shape, self.dtype)
        with _opened(file) as archive, archive.open(self.member) as stream:
            stream.read(self.offset)
            if read_into(stream, elements.reshape(-1).view(np.uint8)) < elements.nbytes or stream.read(1):
                raise zipfile.BadZipFile(f"{self.member.filename[:100]} has another size than is announced")
        return elements


def _groups_name(npz: _Npz, split: str, default: str) -> str | None:
    """Find the array of a split's groups; None when there is none."""
    if not (group := npz.source.group):
        return default if default in npz.members else None
    name = group if group in npz.members else f"{group}_{split}"
    if name not in npz.members:
        found = f"{npz.file} has no array {group}; it has {', '.join(npz.members)}"
        raise DataError(f"{found}; name one of them as group")
    return name


def _read_part(npz: _Npz, split: str, names: _Names) -> _Part:
    if missing := [name for name in (names.images, names.labels) if name not in npz.members]:
        raise DataError(f"{npz.file} lacks the array {missing[0]}; add it")
    where = f"{npz.file}, {names.images}"
    images = _describe_member(npz, names.images, partial(_check_images, where))
    rows, height, width, channels = (*images.shape, 1)[:4]
    check_size(npz.source, rows, (height, width, channels))
    groups_name = _groups_name(npz, split, names.groups)
    columns = {
        name: _read_column(npz, name, (names.images, rows)) for name in (names.labels, groups_name) if name is not None
    }

    def read() -> NDArray[np.uint8]:
        return images.read().reshape(rows, height, width, channels)

    return _Part(
        file=npz.file,
        split=split,
        arrays=names,
        shape=(height, width, channels),
        pixels=ArrayPixels(array=read(), version=npz.version) if images.is_mapped else LazyPixels(load=read),
        labels=columns[names.labels],
        groups=columns[groups_name] if groups_name else None,
        names=(_read_names(npz, _CLASS_NAMES), _read_names(npz, names.group_names)),
    )


def _read_names(npz: _Npz, name: str) -> tuple[str, ...]:
    """Read the names of ids; empty when there is no such array, or only numbers."""
    names = _read_column(npz, name) if name in npz.members else ()
    return () if isinstance(names, np.ndarray) else tuple(names)


def _check_images(where: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype.hasobject:
        remedy = "if the images have one shape, save np.stack(images), otherwise resize them to one shape first"
        raise DataError(f"{where}: {_OBJECT_ARRAY}; {remedy}")
    if dtype.kind == "f":
        raise DataError(f"{where}: pixels are {dtype}, of unknown scale and perhaps NaN; write uint8, 0 to 255")
    if dtype != np.uint8:
        raise DataError(f"{where}: pixels are {dtype}; write uint8, 0 to 255")
    if len(shape) not in (3, 4):
        raise DataError(f"{where}: the shape is {shape}; images are (n, H, W) or (n, H, W, C)")
    if len(shape) == 4 and not 1 <= shape[3] <= 4:
        found = f"{where}: the shape is {shape}; channels come last, 1 for grey and 3 for colour"
        remedy = "write numpy.moveaxis(images, 1, -1)" if shape[1] in (1, 3) else "leave the others out"
        raise DataError(f"{found}; {remedy}")


def _read_column(npz: _Npz, name: str, images: tuple[str, int] | None = None) -> Values:
    """Read labels or groups: whole numbers, or names; as many as `images`, an array and its length, if it is given."""
    where = f"{npz.file}, {name}"

    def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if dtype.hasobject:
            raise DataError(f"{where}: {_OBJECT_ARRAY}; save {name}.astype(str), or .astype(int) if they are numbers")
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise DataError(f"{where}: the shape is {shape}; write one value per row")
        if dtype.kind not in "iuU" or not dtype.itemsize:
            raise DataError(f"{where}: values are {dtype}; write whole numbers, or names as unicode")
        if images is not None and shape[0] != images[1]:
            found = f"{npz.file} holds {images[1]} images in {images[0]} and {shape[0]} values in {name}"
            raise DataError(f"{found}; the counts must be equal")

    column = _describe_member(npz, name, check).read().reshape(-1)  # Keras writes (n, 1)
    if column.dtype.kind == "U":
        return [str(value) for value in column]
    if column.dtype == np.uint64 and len(column) and column.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}, row {int(column.argmax())} has the value {column.max()}; correct the row")
    return column.astype(np.int64)


def _describe_member(npz: _Npz, name: str, check: _CheckHeader) -> _Member:
    """Read the header of an array, which `check` accepts or refuses."""
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
    if is_fortran:
        raise DataError(f"{where}: is in Fortran order; write it in C order with numpy.ascontiguousarray")
    check(shape, dtype)
    size, offset = math.prod(shape), start.tell()
    if size * dtype.itemsize != member.file_size - offset:
        announced = f"its header announces {' × '.join(map(str, shape))} {dtype}"
        found = f"{where}: {announced}, {member.file_size - offset} bytes follow"
        raise DataError(f"{found}; write it again with numpy.savez")
    return _Member(version=npz.version, member=member, shape=shape, dtype=dtype, offset=offset)


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
