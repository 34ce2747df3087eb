"""Read the tables in an image folder: groups.csv has the group of each image, classes.csv the class of each folder.

Both are optional. A file may come from a text editor or a spreadsheet: with commas, semicolons or tabs, with a byte
order mark, with paths as Windows writes them, and with further columns. UTF-8 is required, since other encodings cannot
be recognised.

Source: RFC 4180 (CSV).
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fount.names import normal_name
from fount.readers.dataset import DataError, DatasetSource

__all__ = ["CLASSES_FILE", "GROUPS_FILE", "Groups", "groups_file", "read_classes", "read_groups"]

GROUPS_FILE, CLASSES_FILE = "groups.csv", "classes.csv"
"""The names of the files, in the folder of the classes or splits."""

_GROUPS_COLUMNS, _CLASSES_COLUMNS = ("path", "group"), ("folder", "class")
_DELIMITERS = (",", ";", "\t")
_SEPARATOR = re.compile("sep=(.)\\s*", re.IGNORECASE)  # the first line that Excel writes and reads
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The group of each image in a folder."""

    file: Path
    by_path: Mapping[str, str]

    def of(self, image: Path, root: Path) -> str:
        """Return the group of an image; a DataError names it where the file has no line for it."""
        path = image.relative_to(root).as_posix()
        if (group := self.by_path.get(_path_key(path))) is None:
            first = next(iter(self.by_path), "")[:200]
            remedy = "add one, with the path relative to the data set"
            raise DataError(f"{self.file} has no line for {path}; {remedy}; its first line is for {first!r}")
        return group


def groups_file(source: DatasetSource, root: Path) -> Path:
    """Name the file of the groups of an image folder, which need not exist."""
    return root / (source.group or GROUPS_FILE)


def read_groups(source: DatasetSource, root: Path) -> Groups | None:
    """Read the groups of the images in a folder; None when it has no file of groups.

    Raises:
        DataError: the file is named by the source and absent, or damaged; names the line.
    """
    file = groups_file(source, root)
    if not file.is_file():
        if source.group:
            found = f"{file}, which the setting group names, does not exist"
            raise DataError(f"{found}; write a CSV file with the columns path and group")
        return None
    return Groups(file=file, by_path=_read(file, _GROUPS_COLUMNS))


def read_classes(root: Path) -> dict[str, str] | None:
    """Read the class of each folder, in the order of the labels 0, 1, ...; None when there is no such file.

    Raises:
        DataError: the file is damaged, or gives two folders the same class; names the line.
    """
    file = root / CLASSES_FILE
    if not file.is_file():
        return None
    classes = _read(file, _CLASSES_COLUMNS)
    if not classes:
        raise DataError(f"{file} names no class; write a line for each folder, or remove the file")
    return classes


def _read(file: Path, columns: tuple[str, str]) -> dict[str, str]:
    """Read the second column by the first, which has each value once, or with the same value."""
    rows = _rows(file, columns)
    header = [name.strip().casefold() for name in rows[0][1]] if rows else []
    if any(header.count(name) != 1 for name in columns):
        found = f"{file} begins with {','.join(header)[:80]!r}"
        raise DataError(f"{found}; its first line must name the columns {' and '.join(columns)}, once each")
    places = [header.index(name) for name in columns]
    values: dict[str, str] = {}
    for line, row in rows[1:]:
        key, value = (row[place].strip() if place < len(row) else "" for place in places)
        if not (key and value):
            raise DataError(f"{file}, line {line} is {','.join(row)[:80]!r}; write a {' and a '.join(columns)}")
        if values.setdefault(_path_key(key), value) != value:
            found = f"{file}, line {line} puts {key[:80]!r} into another {columns[1]} than an earlier line"
            raise DataError(f"{found}; remove one of them")
    return values


def _rows(file: Path, columns: tuple[str, str]) -> Sequence[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number; the first line has the names of the columns."""
    try:
        with file.open("rb") as start:
            if start.read(2) in _UTF_16:
                raise DataError(f"{file} is UTF-16; save it as UTF-8, which spreadsheets call CSV UTF-8")
        with file.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            named = _SEPARATOR.fullmatch(header)
            if not named:
                stream.seek(0)
            reader = csv.reader(stream, delimiter=named[1] if named else _delimiter(header))
            skipped = 1 if named else 0
            return [(reader.line_num + skipped, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8; save it as UTF-8, which spreadsheets call CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        found = f"{file} cannot be read ({error})"
        raise DataError(f"{found}; write it as CSV with the columns {' and '.join(columns)}") from error


def _delimiter(header: str) -> str:
    """The delimiter that the first line, which has at least two cells, has most often."""
    return max(_DELIMITERS, key=header.count)


def _path_key(path: str) -> str:
    """Spell a path in one way: in NFC, with slashes."""
    return normal_name(path).replace("\\", "/").removeprefix("./")
