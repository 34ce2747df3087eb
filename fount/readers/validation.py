"""Validate what a reader found and build the `Dataset`: the rules of all formats, checked once.

`RawSplit`s enter with labels as the files have them. Class and group names become ids, limits are checked, and a
held-out test split is separated where the source asks for one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.names import normal_name
from fount.readers.dataset import DataError, Dataset, DatasetSource, DatasetSplit, Pixels

__all__ = [
    "NO_GROUP",
    "NO_GROUP_NAME",
    "RawSplit",
    "Values",
    "build_dataset",
    "check_class_name",
    "check_size",
    "check_sizes",
    "join_values",
]

NO_GROUP = -1
"""The group of a row without one, in a column of ids whose names are known."""

NO_GROUP_NAME = "none"
"""The name of the group that such rows become."""

_UNLABELLED = -1
_HELD_OUT_SEED = 0x464F554E54  # arbitrary but fixed: a held-out split has the same rows everywhere
_MAX_NAME_CHARACTERS = 200
_SHOWN_CHARACTERS = 80

Values = NDArray[np.int64] | Sequence[str]
"""Labels or groups as files have them: numbers, or names."""


@dataclass(frozen=True, kw_only=True)
class RawSplit:
    """One split as a reader found it; labels and groups, if there are any, are one per row.

    Attributes:
        shape: of one image, (H, W, C).
        where: describes a row for error messages, as in "x.npz, row 3 of labels".
    """

    name: str
    pixels: Pixels
    shape: tuple[int, int, int]
    labels: Values
    groups: Values | None = None
    where: Callable[[int], str]


def build_dataset(
    source: DatasetSource,
    *,
    format: str,
    splits: Sequence[RawSplit],
    class_names: Sequence[str] = (),
    group_names: Sequence[str] = (),
) -> Dataset:
    """Validate splits, "train" first, and build the data set from them; names become NFC, and no pixel is read.

    `class_names` and `group_names` are the files' own names of the labels and groups 0, 1, ...; `source.classes` has
    precedence. With group names, rows of NO_GROUP become the group "none".
    """
    splits = list(map(_with_normal_names, splits))
    shape = splits[0].shape
    if len({split.shape for split in splits}) > 1:
        sizes = " and ".join("×".join(map(str, split.shape)) for split in splits)
        raise DataError(f"{source.path} holds images of {sizes}; set size and channels, or make them equal")
    if empty := [split.name for split in splits if not len(split.labels)]:
        raise DataError(f"{source.path} has no rows in {' and '.join(empty)}; add rows, or remove the split")
    check_size(source, sum(len(split.labels) for split in splits), shape)
    classes, labels = _to_classes(source, splits, tuple(map(normal_name, source.classes or class_names)))
    groups, group_ids = _to_groups(source, splits, tuple(map(normal_name, group_names)))
    built = {
        split.name: DatasetSplit(name=split.name, labels=ids, groups=grouped, shape=shape, pixels=split.pixels)
        for split, ids, grouped in zip(splits, labels, group_ids, strict=True)
    }
    return Dataset(
        name=source.name,
        format=format,
        classes=classes,
        groups=groups,
        shape=shape,
        splits=MappingProxyType(built if source.held_out is None else _hold_out(source, source.held_out, built)),
        licence=source.licence,
        background=source.composited_on,
        path=source.path,
    )


def check_size(source: DatasetSource, rows: int, shape: tuple[int, ...]) -> None:
    """Raise a DataError for a data set larger than its limits, before anything of it is decompressed."""
    check_sizes(source, [(rows, shape)])


def check_sizes(source: DatasetSource, parts: Sequence[tuple[int, tuple[int, ...]]]) -> None:
    """Raise a DataError when parts of (rows, shape of an image) are together larger than the limits."""
    limits, rows = source.limits, sum(count for count, _ in parts)
    size = sum(count * int(np.prod(shape, dtype=object)) for count, shape in parts)
    announced = " and ".join(f"{count} images of {'×'.join(map(str, shape))}" for count, shape in parts[:4])
    found = f"{source.path} announces {announced}" + (", and more" if len(parts) > 4 else "")
    if any(0 in shape for _, shape in parts):
        raise DataError(f"{found}; an image has at least one pixel; correct the file")
    if rows > limits.max_rows:
        raise DataError(f"{found}, and at most {limits.max_rows} rows are read; split it into several data sets")
    if any(shape[0] * shape[1] > limits.max_pixels for _, shape in parts):
        raise DataError(f"{found}, and one may have {limits.max_pixels} pixels; make them smaller")
    if size > limits.max_bytes:
        remedy = "make the images smaller (size), split the data set, or raise max_bytes"
        raise DataError(f"{found}, {size} bytes, and at most {limits.max_bytes} are read; {remedy}")


def join_values(source: DatasetSource, columns: Sequence[Values]) -> Values:
    """Concatenate the labels or groups of several files, which are numbers in all of them, or names."""
    numbers = [column for column in columns if isinstance(column, np.ndarray)]
    if len(numbers) == len(columns):
        return np.concatenate(numbers)
    if numbers:
        raise DataError(f"{source.path}: some files have numbers where others have names; make them alike")
    return [str(value) for column in columns for value in column]


def check_class_name(name: str, where: str) -> None:
    """Raise a DataError for a name that is empty, is a path, or has control characters or spaces around it."""
    if name in (".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{where}: the class name {name[:_SHOWN_CHARACTERS]!r} is a path; rename the class")
    _check_name(name, "class", where)


def _check_name(name: str, kind: str, where: str) -> None:
    if not name.strip():
        wrong = "is empty"
    elif any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name):
        wrong = "has control characters"
    elif name != name.strip():
        wrong = "begins or ends with a space, which tables of names do not keep"
    elif len(name) > _MAX_NAME_CHARACTERS:
        wrong = f"has more than {_MAX_NAME_CHARACTERS} characters"
    else:
        return
    raise DataError(f"{where}: the {kind} name {name[:_SHOWN_CHARACTERS]!r} {wrong}; rename the {kind}")


def _with_normal_names(split: RawSplit) -> RawSplit:
    groups = None if split.groups is None else _normal_names(split.groups)
    return replace(split, labels=_normal_names(split.labels), groups=groups)


def _normal_names(values: Values) -> Values:
    if isinstance(values, np.ndarray):
        return values
    normal = {value: normal_name(value) for value in set(values)}
    return [normal[value] for value in values]


def _to_classes(
    source: DatasetSource, splits: Sequence[RawSplit], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[NDArray[np.uint32]]]:
    """The class names, and the labels of every split as ids."""
    limit = source.limits.max_classes
    if not names:
        columns = [split.labels for split in splits]
        if _are_names(columns, source, "labels"):
            found_names = {str(value) for column in columns for value in column}
            _check_count(source, len(found_names), "classes")  # first: sorting millions holds the interpreter
            names = tuple(sorted(found_names))
        else:
            largest = max(int(column.max()) for column in columns if isinstance(column, np.ndarray))
            names = tuple(map(str, range(min(largest, limit) + 1)))
    _check_count(source, len(names), "classes")
    for name in names:
        check_class_name(name, str(source.path))
    if len(set(names)) < len(names):
        repeated = min(name for name in names if names.count(name) > 1)
        raise DataError(f"{source.path}: the class name {repeated!r} occurs twice; name each class once")
    return names, [_to_ids(split, names) for split in splits]


def _check_count(source: DatasetSource, count: int, what: str) -> None:
    if count > (limit := source.limits.max_classes):
        column = "label column holds labels" if what == "classes" else "group column holds groups"
        raise DataError(f"{source.path} has {count} {what}, and at most {limit} are read; check that the {column}")


def _are_names(columns: Sequence[Values], source: DatasetSource, what: str) -> bool:
    """Whether columns hold names; a mixture is refused, since no name belongs to a number."""
    kinds = {isinstance(column, np.ndarray) for column in columns}
    if len(kinds) > 1:
        raise DataError(f"{source.path}: {what} are numbers in one split and names in another; make them alike")
    return False in kinds


def _to_ids(split: RawSplit, names: tuple[str, ...]) -> NDArray[np.uint32]:
    values = split.labels
    if isinstance(values, np.ndarray):
        if len(wrong := np.flatnonzero((values < 0) | (values >= len(names)))):
            row = int(wrong[0])
            found = f"{split.where(row)} has label {values[row]}, outside 0 to {len(names) - 1}"
            if values[row] == _UNLABELLED:
                raise DataError(f"{found}; in some sets it means unlabelled: leave such a file, split or row out")
            raise DataError(f"{found}; correct the row, or name as many classes as there are")
        return values.astype(np.uint32)
    known = {name: number for number, name in enumerate(names)}
    for row, value in enumerate(values):
        if value not in known:
            found = f"{split.where(row)} has label {value[:_SHOWN_CHARACTERS]!r}, which is not among the classes"
            raise DataError(f"{found} {', '.join(names)[:400]}; correct the row, or add the class")
    return np.array([known[value] for value in values], np.uint32)


def _to_groups(
    source: DatasetSource, splits: Sequence[RawSplit], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[NDArray[np.uint32] | None]]:
    """The group names, and the groups of every split as ids; all splits have them, or none."""
    columns = [split.groups for split in splits if split.groups is not None]
    if not columns:
        return (), [None] * len(splits)
    if without := [split.name for split in splits if split.groups is None]:
        found = f"{source.path} has groups, but not for {' and '.join(without)}"
        raise DataError(f"{found}; add them there, or remove them everywhere")
    are_names = _are_names(columns, source, "groups")
    if names and not are_names:
        return _to_named_groups(source, splits, names)
    distinct = [set(column) if are_names else np.unique(column) for column in columns]
    for each in distinct:
        _check_count(source, len(each), "groups")
    values = sorted({value for each in distinct for value in _as_list(each)})
    _check_count(source, len(values), "groups")
    for name in values if are_names else ():
        _check_name(name, "group", str(source.path))
    number = {value: k for k, value in enumerate(values)}
    ids = [np.array([number[value] for value in _as_list(column)], np.uint32) for column in columns]
    return tuple(map(str, values)), list(ids)


def _to_named_groups(
    source: DatasetSource, splits: Sequence[RawSplit], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[NDArray[np.uint32] | None]]:
    """The group names, and "none" when a row has no group; the groups of every split, which are ids already."""
    columns = [np.asarray(split.groups, np.int64) for split in splits]
    for split, column in zip(splits, columns, strict=True):
        if len(wrong := np.flatnonzero((column < NO_GROUP) | (column >= len(names)))):
            row = int(wrong[0])
            found = f"{split.where(row)} has group {column[row]}, outside 0 to {len(names) - 1}"
            raise DataError(f"{found}; correct the row, or name as many groups as there are")
    if any((column == NO_GROUP).any() for column in columns) and NO_GROUP_NAME not in names:
        names = (*names, NO_GROUP_NAME)
    for name in names:
        _check_name(name, "group", str(source.path))
    if len(set(names)) < len(names):
        repeated = min(name for name in names if names.count(name) > 1)
        raise DataError(f"{source.path}: the group name {repeated!r} occurs twice; name each group once")
    none = names.index(NO_GROUP_NAME) if NO_GROUP_NAME in names else 0
    return names, [np.where(column == NO_GROUP, none, column).astype(np.uint32) for column in columns]


def _as_list(column: Values | Set[str] | NDArray[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


@dataclass(frozen=True, kw_only=True)
class _SelectedPixels:
    """Some rows of a split, renumbered from 0."""

    base: Pixels
    rows: NDArray[np.int64]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.base.read(self.rows[rows])


def _hold_out(source: DatasetSource, share: float, splits: dict[str, DatasetSplit]) -> dict[str, DatasetSplit]:
    """Move a share of every class from "train" to "test": the rows whose word on the stream RESAMPLE is lowest."""
    if "test" in splits:
        raise DataError(f"{source.path} already has a test split; remove held_out")
    train = splits["train"]
    words = Addresses.of_range(_HELD_OUT_SEED, 0, len(train)).words(Stream.RESAMPLE, 1)[:, 0]
    held = np.zeros(len(train), np.bool_)
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label)
        count = min(max(1, round(share * len(rows))), len(rows) - 1)  # a class of one row stays in training
        held[rows[np.argsort(words[rows], kind="stable")[:count]]] = True
    if not held.any():
        raise DataError(f"{source.path} has one row per class, so none can be held out; remove held_out")
    return {"train": _select(train, "train", ~held), "test": _select(train, "test", held)} | {
        name: split for name, split in splits.items() if name != "train"
    }


def _select(split: DatasetSplit, name: str, chosen: NDArray[np.bool_]) -> DatasetSplit:
    rows = np.flatnonzero(chosen)
    return replace(
        split,
        name=name,
        labels=split.labels[rows],
        groups=None if split.groups is None else split.groups[rows],
        pixels=_SelectedPixels(base=split.pixels, rows=rows),
    )
