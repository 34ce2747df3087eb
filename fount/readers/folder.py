"""A folder of pictures by class: ROOT/CLASS/*.png, or ROOT/train/CLASS/… and ROOT/test/CLASS/….

Everything is taken in the order of its name; pictures are decoded when they are read. Nothing outside the root is
followed, and whatever lies there that is neither class nor picture is named rather than skipped. A file groups.csv in
the root, with the columns path and group, puts each picture into a group.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fount.readers.assemble import Part, assemble, check_amount, check_class_name
from fount.readers.dataset import DataError, Dataset, FileStamp
from fount.readers.decode import PICTURE_ENDINGS, PictureReader, picture_reader
from fount.readers.source import DatasetSource

__all__ = ["read_folder"]

_SPLITS = ("train", "test", "val", "validation")
_GROUPS_FILE = "groups.csv"
_GROUPS_COLUMNS = ["path", "group"]
_NO_DATA = frozenset({"Thumbs.db", "desktop.ini", "README.md", "LICENSE", "README.txt", "LICENSE.txt"})


def read_folder(source: DatasetSource, root: Path) -> Dataset:
    """List the pictures of a folder; only the first is opened.

    Raises:
        DataError: there is no class or an empty one, something that is no picture, or a link that leaves the root.
    """
    inside = root.resolve()
    names = {folder.name: folder for folder in _folders(root, inside)}
    roots = {name: names[name] for name in _SPLITS if name in names} if "train" in names else {"train": root}
    if "train" in names and (others := sorted(set(names) - set(_SPLITS))):
        raise DataError(f"{names[others[0]]} lies beside {names['train']}; a folder holds splits, or classes; move it")
    listed = {name: _list_split(source, folder, inside) for name, folder in roots.items()}
    groups = _read_groups(source, root)
    first = FileStamp.of(listed["train"][0].file).file  # which no pipe is: opening one would wait for ever
    reader = picture_reader(source, first, str(first))
    check_amount(source, sum(map(len, listed.values())), reader.shape)
    parts = [_to_part(name, entries, reader, root, groups) for name, entries in listed.items()]
    return assemble(source, kind="folder", shape=reader.shape, parts=parts)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One picture of a class."""

    file: Path
    label: str


@dataclass(frozen=True, kw_only=True)
class _FolderPixels:
    """Pictures, decoded as they are asked for."""

    stamps: tuple[FileStamp, ...]
    reader: PictureReader

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.reader.shape), np.uint8)
        for k, row in enumerate(rows.tolist()):
            self.stamps[row].check()
            images[k] = self.reader.read(self.stamps[row].file, f"{self.stamps[row].file} (row {row})")
        return images


def _to_part(
    name: str, entries: list[_Entry], reader: PictureReader, root: Path, groups: dict[str, str] | None
) -> Part:
    pixels = _FolderPixels(stamps=tuple(FileStamp.of(entry.file) for entry in entries), reader=reader)
    return Part(
        name=name,
        pixels=pixels,
        labels=[entry.label for entry in entries],
        groups=None if groups is None else [_group_of(entry.file, root, groups) for entry in entries],
        where=lambda row: f"{entries[row].file} (row {row})",
    )


def _list_split(source: DatasetSource, folder: Path, inside: Path) -> list[_Entry]:
    """Every picture of every class, in the order of names."""
    classes = list(_folders(folder, inside))
    if not classes:
        raise DataError(f"{folder} holds no folder of a class; make one for each class, with its pictures in it")
    if len(classes) > source.limits.max_classes:
        raise DataError(
            f"{folder} has {len(classes)} folders, and at most {source.limits.max_classes} classes are read"
        )
    found: list[_Entry] = []
    for each in classes:
        check_class_name(each.name, str(folder))
        pictures = [_Entry(file=file, label=each.name) for file in _pictures(each, inside)]
        if not pictures:
            raise DataError(f"{each} holds no picture; remove the folder, or put the class's pictures there")
        found += pictures
        if len(found) > source.limits.max_rows:
            raise DataError(f"{folder} has more than the {source.limits.max_rows} pictures that are read; cut it")
    return found


def _folders(root: Path, inside: Path) -> Iterator[Path]:
    for entry in _entries(root, inside):
        if entry.is_dir():
            yield entry
        elif entry.suffix.lower() in PICTURE_ENDINGS:
            raise DataError(f"{entry} lies beside the folders of classes; put it into the folder of its class")
        elif entry.name not in _NO_DATA and entry.name != _GROUPS_FILE:
            raise DataError(f"{entry} is neither a class nor a picture; move it elsewhere")


def _pictures(folder: Path, inside: Path) -> Iterator[Path]:
    for entry in _entries(folder, inside):
        if entry.is_dir():
            raise DataError(f"{entry} is a folder within a class; move its pictures one up")
        if entry.suffix.lower() in PICTURE_ENDINGS:
            yield entry
        elif entry.name not in _NO_DATA:
            told = ", ".join(sorted(PICTURE_ENDINGS))
            raise DataError(f"{entry} is no picture that is read here ({told}); convert it, or move it elsewhere")


def _entries(folder: Path, inside: Path) -> list[Path]:
    """What lies in a folder, sorted by name; hidden things are nobody's data."""
    try:
        found = sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=str)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror or error}; check its path and permissions"
        ) from error
    for each in found:
        if each.is_symlink() and not Path(os.path.realpath(each)).is_relative_to(inside):  # bears links in a circle
            raise DataError(f"{each} is a link that leaves {inside}; put the file itself there")
    return found


# --- Groups -----------------------------------------------------------------------------------------------------------


def _read_groups(source: DatasetSource, root: Path) -> dict[str, str] | None:
    """Group by path, from groups.csv; None when there is no such file."""
    file = root / (source.group or _GROUPS_FILE)
    if not file.is_file():
        if source.group:
            raise DataError(
                f"{file} is not there, and group names it; write a CSV file with the columns path and group"
            )
        return None
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.reader(stream)
            header = next(rows, [])
            if header != _GROUPS_COLUMNS:
                raise DataError(f"{file} begins with {','.join(header)[:80]!r}; its first line is path,group")
            groups: dict[str, str] = {}
            for path, group in (_read_group(file, rows.line_num, row) for row in rows if row):
                if groups.setdefault(path, group) != group:
                    told = f"{file}, line {rows.line_num} puts {path[:80]!r} into another group than a line before"
                    raise DataError(f"{told}; leave one of them")
            return groups
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read ({error}); write it as UTF-8 with the columns path and group"
        ) from error


def _read_group(file: Path, line: int, row: list[str]) -> tuple[str, str]:
    if len(row) != len(_GROUPS_COLUMNS) or not row[1].strip():
        raise DataError(f"{file}, line {line} is {','.join(row)[:80]!r}; write a path and a group")
    return row[0], row[1]


def _group_of(picture: Path, root: Path, groups: dict[str, str]) -> str:
    path = picture.relative_to(root).as_posix()
    if path not in groups:
        raise DataError(f"{root / _GROUPS_FILE} has no line for {path}; add one")
    return groups[path]
