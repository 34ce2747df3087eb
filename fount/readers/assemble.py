"""From what a reader found to a `Dataset`: every rule that holds for all formats is checked here, once.

Parts enter, with labels as the files have them; class and group ids, counts, caps and the held-out split are settled.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.readers.dataset import DataError, Dataset, DatasetSplit, Pixels
from fount.readers.source import DatasetSource

__all__ = ["Part", "Values", "assemble", "check_amount", "check_class_name"]

_HELD_OUT_SEED = 0x464F554E54  # of no meaning, but fixed: a held-out split is the same rows everywhere
_MOST_NAME = 200  # characters
_SHOWN = 80

Values = NDArray[np.int64] | Sequence[str]
"""Labels or groups as files have them: numbers, or names."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split as a reader found it.

    Attributes:
        name: of the split.
        pixels: its images.
        labels: one a row.
        groups: one a row; None: there is no such column.
        where: names a row for a message, as in "x.npz, row 3 of labels".
    """

    name: str
    pixels: Pixels
    labels: Values
    groups: Values | None = None
    where: Callable[[int], str]


def assemble(
    source: DatasetSource,
    *,
    kind: str,
    shape: tuple[int, int, int],
    parts: Sequence[Part],
    class_names: Sequence[str] = (),
) -> Dataset:
    """Make a data set of its parts.

    Args:
        source: what was asked for.
        kind: the format.
        shape: of every image, (H, W, C).
        parts: the splits, "train" first.
        class_names: what the files call labels 0, 1, ...; the source's own names go before them.

    Raises:
        DataError: there are no rows or too many, or a label, a group or a class name cannot be.
    """
    if empty := [part.name for part in parts if not len(part.labels)]:
        raise DataError(f"{source.path} has no rows in {' and '.join(empty)}; put some there, or remove the split")
    check_amount(source, sum(len(part.labels) for part in parts), shape)
    classes, labels = _to_classes(source, parts, tuple(source.classes or class_names))
    groups, group_ids = _to_groups(source, parts)
    splits = {
        part.name: DatasetSplit(name=part.name, labels=ids, groups=grouped, shape=shape, pixels=part.pixels)
        for part, ids, grouped in zip(parts, labels, group_ids, strict=True)
    }
    if source.held_out is not None:
        splits = _hold_out(source, splits)
    return Dataset(
        name=source.name,
        format=kind,
        classes=classes,
        groups=groups,
        shape=shape,
        splits=MappingProxyType(splits),
        licence=source.licence,
    )


def check_amount(source: DatasetSource, rows: int, shape: tuple[int, ...]) -> None:
    """Refuse a data set larger than its limits, before anything of it is unpacked.

    Raises:
        DataError: too many rows, too large pictures, or too many bytes altogether.
    """
    limits = source.limits
    size = rows * int(np.prod(shape, dtype=object))
    told = f"{source.path} announces {rows} images of {'×'.join(map(str, shape))}"
    if 0 in shape:
        raise DataError(f"{told}; an image has at least one pixel; put the right file there")
    if rows > limits.max_rows:
        raise DataError(f"{told}, and at most {limits.max_rows} rows are read; cut it into several data sets")
    if shape[0] * shape[1] > limits.max_pixels:
        raise DataError(f"{told}, and one may have {limits.max_pixels} pixels; make them smaller")
    if size > limits.max_bytes:
        remedy = "make the images smaller (size), cut the data set, or raise max_bytes"
        raise DataError(f"{told}, {size} bytes, and {limits.max_bytes} are read at most; {remedy}")


def check_class_name(name: str, where: str) -> None:
    """Refuse a name that is empty, would leave a folder, or would move a terminal's cursor.

    Raises:
        DataError: names the place and the name.
    """
    if name in (".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{where}: the class name {name[:_SHOWN]!r} is a path; give the class another name")
    _check_name(name, "class", where)


def _check_name(name: str, what: str, where: str) -> None:
    if not name.strip():
        wrong = "is empty"
    elif any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name):
        wrong = "has control characters"
    elif len(name) > _MOST_NAME:
        wrong = f"has more than {_MOST_NAME} characters"
    else:
        return
    raise DataError(f"{where}: the {what} name {name[:_SHOWN]!r} {wrong}; give the {what} another name")


def _to_classes(
    source: DatasetSource, parts: Sequence[Part], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[NDArray[np.uint32]]]:
    """The class names, and the labels of every part as ids."""
    if not names:
        names = _names_of([part.labels for part in parts], source)
    if len(names) > source.limits.max_classes:
        told = f"{source.path} has {len(names)} classes"
        raise DataError(f"{told}, and at most {source.limits.max_classes} are read; the labels may be something else")
    for name in names:
        check_class_name(name, str(source.path))
    if len(twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise DataError(f"{source.path}: the class name {min(twice)!r} stands there twice; name each class once")
    return names, [_to_ids(part.labels, names, part.where) for part in parts]


def _names_of(columns: Sequence[Values], source: DatasetSource) -> tuple[str, ...]:
    """Names sorted, or the numbers up to the largest."""
    if _are_names(columns, source, "labels"):
        return tuple(sorted({str(value) for column in columns for value in column}))
    largest = max(int(column.max()) for column in columns if isinstance(column, np.ndarray))
    return tuple(map(str, range(min(largest, source.limits.max_classes) + 1)))


def _are_names(columns: Sequence[Values], source: DatasetSource, what: str) -> bool:
    """Whether columns hold names; of two kinds together nobody knows which number is which name."""
    kinds = {isinstance(column, np.ndarray) for column in columns}
    if len(kinds) > 1:
        raise DataError(f"{source.path}: {what} are numbers in one split and names in another; write them alike")
    return False in kinds


def _to_ids(values: Values, names: tuple[str, ...], where: Callable[[int], str]) -> NDArray[np.uint32]:
    if isinstance(values, np.ndarray):
        if len(wrong := np.flatnonzero((values < 0) | (values >= len(names)))):
            row = int(wrong[0])
            told = f"{where(row)} has label {values[row]}, and they are 0 to {len(names) - 1}"
            raise DataError(f"{told}; mend the row, or name as many classes as there are")
        return values.astype(np.uint32)
    known = {name: number for number, name in enumerate(names)}
    for row, value in enumerate(values):
        if value not in known:
            raise DataError(
                f"{where(row)} has label {value[:_SHOWN]!r}, which is none of {', '.join(names)[:400]}; "
                "mend the row, or add the class"
            )
    return np.array([known[value] for value in values], np.uint32)


def _to_groups(source: DatasetSource, parts: Sequence[Part]) -> tuple[tuple[str, ...], list[NDArray[np.uint32] | None]]:
    """The group names, and the groups of every part as ids; all parts have them, or none."""
    columns = [part.groups for part in parts if part.groups is not None]
    if not columns:
        return (), [None] * len(parts)
    if without := [part.name for part in parts if part.groups is None]:
        told = f"{source.path} has groups, but not for {' and '.join(without)}"
        raise DataError(f"{told}; add them there, or take them away everywhere")
    are_names = _are_names(columns, source, "groups")
    values = sorted({value for column in columns for value in _different(column)})
    if len(values) > source.limits.max_classes:
        raise DataError(f"{source.path} has {len(values)} groups, and at most {source.limits.max_classes} are read; "
                        "the group column may be something else")  # fmt: skip
    for name in values if are_names else ():
        _check_name(name, "group", str(source.path))
    number = {value: k for k, value in enumerate(values)}
    ids = [np.array([number[value] for value in _listed(column)], np.uint32) for column in columns]
    return tuple(str(value) for value in values), list(ids)


def _different(column: Values) -> set[Any]:
    return set(np.unique(column).tolist() if isinstance(column, np.ndarray) else column)


def _listed(column: Values) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


# --- The held-out split -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _PickedPixels:
    """Some rows of a split, as if they were all."""

    base: Pixels
    picked: NDArray[np.int64]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.base.read(self.picked[rows])


def _hold_out(source: DatasetSource, splits: dict[str, DatasetSplit]) -> dict[str, DatasetSplit]:
    """Cut a share of every class off the training rows: those whose own word on the stream RESAMPLE is lowest."""
    if "test" in splits or source.held_out is None:
        raise DataError(f"{source.path} has a test split of its own; leave held_out away")
    train = splits["train"]
    words = Addresses.of_range(_HELD_OUT_SEED, 0, len(train)).words(Stream.RESAMPLE, 1)[:, 0]
    held = np.zeros(len(train), np.bool_)
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label)
        count = min(max(1, round(source.held_out * len(rows))), len(rows) - 1)  # a class of one row is for training
        held[rows[np.argsort(words[rows], kind="stable")[:count]]] = True
    if not held.any():
        raise DataError(f"{source.path} has one row a class, so none can be held out; leave held_out away")
    cut = {name: _pick(train, name, np.flatnonzero(rows)) for name, rows in (("train", ~held), ("test", held))}
    return cut | {name: split for name, split in splits.items() if name != "train"}


def _pick(split: DatasetSplit, name: str, rows: NDArray[np.int64]) -> DatasetSplit:
    return replace(
        split,
        name=name,
        labels=split.labels[rows],
        groups=None if split.groups is None else split.groups[rows],
        pixels=_PickedPixels(base=split.pixels, picked=rows),
    )
