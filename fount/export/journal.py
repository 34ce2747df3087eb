"""What of an export is done: a line for each part that is whole, added once its file has its name and is on the disk.

A line torn by a crash is forgotten: its part counts as not made, and is made again with the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from fount.files import sync_folder

__all__ = ["Journal", "Record"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One part that is whole.

    Attributes:
        part: its number.
        first: its first row in the plan.
        end: one beyond its last.
        file: where it is, from the export's folder.
        bytes: its size.
        sha256: its digest, hexadecimal.
        rows: how many rows it holds.
        rejected: how many slots were left out.
        by_class: rows of each class name that has any.
        by_source: rows of each source that has any; empty without provenance.
    """

    part: int
    first: int
    end: int
    file: str
    bytes: int
    sha256: str
    rows: int
    rejected: int
    by_class: Mapping[str, int]
    by_source: Mapping[str, int]


class Journal:
    """A file of JSON lines; threads may add to it."""

    def __init__(self, path: Path) -> None:
        """Read what is there, and cut off what a crash left torn.

        Raises:
            OSError: it cannot be read or cut.
        """
        self._path, self._lock = path, Lock()
        self.records: dict[int, Record] = {}
        whole = 0
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if (record := _record(line)) is None:
                break
            self.records[record.part] = record
            whole += len(line)
        if whole < sum(map(len, lines)):
            os.truncate(path, whole)

    def add(self, record: Record) -> None:
        """Note that a part is whole.

        Raises:
            OSError: it cannot be written; the journal is as before.
        """
        line = json.dumps(asdict(record)).encode() + b"\n"
        with self._lock:
            is_new, size = not self._path.exists(), self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                with suppress(FileNotFoundError):
                    os.truncate(self._path, size)  # half a line would hide those after it
                raise
            if is_new:
                sync_folder(self._path.parent)
            self.records[record.part] = record


def _record(line: bytes) -> Record | None:
    try:
        return Record(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None
