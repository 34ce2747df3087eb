"""Read groups.csv of an image folder: the group of each image, by its path in the folder.

The file may come from a text editor or a spreadsheet: with commas, semicolons or tabs, with a byte order mark, with
paths as Windows writes them, and with further columns. UTF-8 is required, since other encodings cannot be recognised.

Source: RFC 4180 (CSV).
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fount.names import normal_name
from fount.readers.dataset import DataError, DatasetSource

__all__ = ["Groups", "groups_file", "read_groups"]

_DEFAULT_NAME = "groups.csv"
_COLUMNS = ("path", "group")
_DELIMITERS = (",", ";", "\t")
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
            raise DataError(f"{self.file} has no line for {path}; add one")
        return group


def groups_file(source: DatasetSource, root: Path) -> Path:
    """Name the file of the groups of an image folder, which need not exist."""
    return root / (source.group or _DEFAULT_NAME)


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
    groups: dict[str, str] = {}
    for line, path, group in _lines(file):
        if groups.setdefault(_path_key(path), group) != group:
            found = f"{file}, line {line} puts {path[:80]!r} into another group than an earlier line"
            raise DataError(f"{found}; remove one of them")
    return Groups(file=file, by_path=groups)


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """The number, path and group of each line that has any."""
    rows = _rows(file)
    header = [name.strip().casefold() for name in rows[0][1]] if rows else []
    if any(header.count(name) != 1 for name in _COLUMNS):
        found = f"{file} begins with {','.join(header)[:80]!r}"
        raise DataError(f"{found}; its first line must name the columns path and group, once each")
    places = [header.index(name) for name in _COLUMNS]
    for line, row in rows[1:]:
        path, group = (row[place].strip() if place < len(row) else "" for place in places)
        if not (path and group):
            raise DataError(f"{file}, line {line} is {','.join(row)[:80]!r}; write a path and a group")
        yield line, path, group


def _rows(file: Path) -> Sequence[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number; the first line has the names of the columns."""
    try:
        with file.open("rb") as start:
            if start.read(2) in _UTF_16:
                raise DataError(f"{file} is UTF-16; save it as UTF-8, which spreadsheets call CSV UTF-8")
        with file.open(newline="", encoding="utf-8-sig") as stream:
            delimiter = _delimiter(stream.readline())
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8; save it as UTF-8, which spreadsheets call CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{file} cannot be read ({error}); write it as CSV with the columns path and group") from error


def _delimiter(header: str) -> str:
    """The delimiter that the first line, which has at least two cells, has most often."""
    return max(_DELIMITERS, key=header.count)


def _path_key(path: str) -> str:
    """Spell a path in one way: in NFC, with slashes."""
    return normal_name(path).replace("\\", "/").removeprefix("./")
