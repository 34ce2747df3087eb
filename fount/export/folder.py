"""A folder for each class, a PNG file for each row, and a line for each in `rows.csv`.

Class names come from a server: only what is safe in a file's name is kept of them.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from fount.export.png import deflated_pngs
from fount.export.table import Contents, Table, values_of

__all__ = ["encode_folder", "folder_names", "heading_line"]

_LONGEST_NAME = 64


def encode_folder(table: Table, save: Callable[[str, bytes], None]) -> bytes:
    """Save the files of a part, and give their lines of `rows.csv`.

    Args:
        table: the rows.
        save: writes a file: its path under the folder of the data, and its bytes.
    """
    folders = folder_names(table.contents.classes)
    values = zip(*(values_of(table, name) for name in table.columns), strict=True)
    labels, indices = table.columns["label"].tolist(), table.columns["index"].tolist()
    lines: list[list[Any]] = []
    for png, label, index, row in zip(deflated_pngs(table.images), labels, indices, values, strict=True):
        path = f"{folders[label]}/{index:09d}.png"
        save(path, png)
        lines.append([path, hashlib.sha256(png).hexdigest(), table.contents.classes[label], *row])
    return _as_csv(lines)


def heading_line(contents: Contents) -> bytes:
    """The first line of `rows.csv`."""
    return _as_csv([["file", "sha256", "class", *contents.columns()]])


def folder_names(classes: Sequence[str]) -> list[str]:
    """Name the folder of each class: by its name, as far as that is safe, and no two alike.

    Args:
        classes: class names by id, as a server sent them.

    Returns:
        ASCII letters, digits, "-", "_" and "." alone, never beginning with "."; with the id behind where a name was
        changed or is taken.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label, name in enumerate(classes):
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip(".-")[:_LONGEST_NAME].rstrip(".") or "class"
        while safe.lower() in taken or (safe != name and not safe.endswith(f"_{label}")):
            safe = f"{safe}_{label}"
        taken.add(safe.lower())
        names.append(safe)
    return names


def _as_csv(lines: Sequence[Sequence[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()
