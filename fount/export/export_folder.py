"""The folder of an export, its lock, and the journal of the parts that are complete.

    data/…                 the rows; with --format folder one folder per class, classes.csv and groups.csv
    rows.csv               with --format folder: every column of every row
    manifest.json          written last: an export without it is incomplete
    .fount/export.json     identifies the export; a folder of another one is refused
    .fount/plan.json       the request and the plan, when the plan was made for this folder
    .fount/plan.ticket     its ticket
    .fount/journal.jsonl   the parts that are complete
    .fount/staging/        files being written; emptied when an export starts
    .fount/lock            held during an export

Only one process writes at a time; the operating system releases the lock of a process that dies. What cannot be read or
written is an `OutputError` that names the path.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from fount.errors import OutputError, output_errors
from fount.files import atomic_write, sync_folder
from fount.json_text import parse_json

__all__ = ["MANIFEST", "ExportFolder", "Journal", "PartRecord"]

MANIFEST = "manifest.json"
"""The file that marks an export as complete."""

_METADATA = ".fount"


class ExportFolder:
    """The folder of one export; what cannot be read or written is an `OutputError` that names the path."""

    def __init__(self, path: Path) -> None:
        """Check that the path is free, or holds an export; nothing is read or created."""
        self.path, self._metadata = path, path / _METADATA
        self.staging = self._metadata / "staging"
        with output_errors(path):
            if path.exists() and not path.is_dir():
                raise OutputError(f"{path} is a file; name a folder with --out")
            if not path.exists() and not path.absolute().parent.is_dir():
                raise OutputError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
            if path.exists() and not self._metadata.is_dir() and any(path.iterdir()):
                raise OutputError(f"{path} is not empty and holds no export; name another folder with --out")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder until the block ends, and delete what a crash left half-written; fail if it is locked."""
        with output_errors(self.path):
            self._metadata.mkdir(parents=True, exist_ok=True)
            lock = (self._metadata / "lock").open("a")
        with lock:
            if not _try_lock(lock):
                raise OutputError(f"{self.path} is being written by another `fount pull`; wait for it, or stop it")
            with output_errors(self.path):
                shutil.rmtree(self.staging, ignore_errors=True)
                self.staging.mkdir(exist_ok=True)
            try:
                yield
            finally:
                shutil.rmtree(self.staging, ignore_errors=True)

    def journal(self) -> Journal:
        """Read the journal."""
        with output_errors(self.path):
            return Journal(self._metadata / "journal.jsonl")

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Record the JSON values that distinguish this export, or check that the folder is for the same one."""
        known = self._read("export.json")
        if known is None:
            self._write("export.json", identity)
            return
        for key, value in identity.items():
            if known.get(key) != value:
                held, requested = (json.dumps(each)[:100] for each in (known.get(key), value))
                difference = f"{key.replace('_', ' ')} {held}, requested is {requested}"
                raise OutputError(f"{self.path} holds another export ({difference}); name another folder with --out")

    def plan(self) -> dict[str, Any] | None:
        """Read what `save_plan` saved; None when there is none."""
        return self._read("plan.json")

    def save_plan(self, plan: Mapping[str, Any], ticket: bytes) -> None:
        """Save the plan made for this folder, so that a second run continues with the same one."""
        self._write("plan.json", plan)
        self.write(f"{_METADATA}/plan.ticket", ticket)

    def write(self, file: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file of the export atomically; its path is relative to the folder."""
        path = self.path / file
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data, staging=self.staging, durable=durable)

    def manifest(self) -> dict[str, Any] | None:
        """Read the manifest; None when there is none that can be read."""
        try:
            manifest = parse_json((self.path / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._metadata / name
        try:
            known = parse_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}); name another folder with --out") from error
        if not isinstance(known, dict):
            raise OutputError(f"{path} is not of an export; name another folder with --out")
        return known

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self.write(f"{_METADATA}/{name}", (json.dumps(value, indent=2) + "\n").encode())


def _try_lock(lock: IO[str]) -> bool:
    try:
        import fcntl
    except ModuleNotFoundError:  # not a Unix: simultaneous exports to one folder are not detected
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """One complete part: the rows first to end - 1 of the plan, without the rejected ones.

    Attributes:
        file: its path, relative to the export's folder.
        sha256: digest of the file, hexadecimal.
        by_class: number of rows per class name; no zeros.
        by_source: number of rows per source; no zeros, and empty without provenance.
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
    """A file with one JSON line per complete part, added once the part is durable under its name; thread-safe.

    A line torn by a crash is dropped: its part counts as missing, and is written again with the same bytes.
    """

    def __init__(self, path: Path) -> None:
        """Read the records, and truncate the file before a torn line."""
        self._path, self._lock = path, Lock()
        self.records: dict[int, PartRecord] = {}
        intact_bytes = 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            if (record := _parse_record(line)) is None:
                break
            self.records[record.part] = record
            intact_bytes += len(line)
        if intact_bytes < len(data):
            os.truncate(path, intact_bytes)

    def add(self, record: PartRecord) -> None:
        """Record that a part is complete; after an OSError the journal is unchanged."""
        line = json.dumps(asdict(record)).encode() + b"\n"
        with self._lock:
            is_new = not self._path.exists()
            size = 0 if is_new else self._path.stat().st_size
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


def _parse_record(line: bytes) -> PartRecord | None:
    try:
        return PartRecord(**parse_json(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None
