"""The folder of an export: whose it is, what of it is whole, and what says that all of it is.

    data/…                 the rows; with --format folder a folder a class, and rows.csv beside them
    manifest.json          written last: an export without it is not whole
    .fount/export.json     what the folder holds; anything else is refused
    .fount/plan.json       the wishes and the plan, when the plan was made for this folder
    .fount/plan.ticket     its ticket
    .fount/journal.jsonl   the parts that are whole
    .fount/staging/        what is being written; thrown away when an export begins
    .fount/lock            held while somebody writes

Only one process writes at a time; the system drops its lock when it dies, however it dies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fount.cli.output.writer import writing
from fount.errors import OutputError
from fount.export.journal import Journal
from fount.files import atomic_write

__all__ = ["MANIFEST", "Place"]

MANIFEST = "manifest.json"
"""What makes an export whole."""

_OURS = ".fount"


class Place:
    """One export's folder."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read or made.

        Raises:
            OutputError: it holds something that is no export, is no folder, or there is no folder to make it in.
        """
        self.folder, self.ours = folder, folder / _OURS
        self.staging, self._lock = self.ours / "staging", self.ours / "lock"
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; name a folder with --out")
        if not folder.exists() and not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder} cannot be written: there is no folder {folder.absolute().parent}")
        if folder.exists() and not self.ours.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty and holds no export; name another folder with --out")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep everybody else from writing here, and begin without what a crash left half-written.

        Raises:
            OutputError: somebody writes here, or it cannot be written.
        """
        with writing(self.folder):
            self.ours.mkdir(parents=True, exist_ok=True)
            lock = self._lock.open("a")
        with lock:
            if not _locked(lock):
                raise OutputError(f"{self.folder} is being written by another `fount pull`; wait for it, or end it")
            with writing(self.folder):
                shutil.rmtree(self.staging, ignore_errors=True)
                self.staging.mkdir(exist_ok=True)
            try:
                yield
            finally:
                shutil.rmtree(self.staging, ignore_errors=True)

    def journal(self) -> Journal:
        """Read what is whole.

        Raises:
            OutputError: it cannot be read.
        """
        with writing(self.folder):
            return Journal(self.ours / "journal.jsonl")

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Note what the folder is for, or see that it is for the same.

        Args:
            identity: JSON values that make one export another.

        Raises:
            OutputError: it holds another export, naming in what it differs.
        """
        known = self._read("export.json")
        if known is None:
            self._write("export.json", identity)
            return
        for key, value in identity.items():
            if known.get(key) != value:
                other, asked = (_brief(each) for each in (known.get(key), value))
                what = f"{key.replace('_', ' ')} {other}, where {asked} was asked for"
                raise OutputError(f"{self.folder} holds another export ({what}); name another folder with --out")

    def plan(self) -> dict[str, Any] | None:
        """What `keep_plan` kept; None when there is none.

        Raises:
            OutputError: it is there, and cannot be read.
        """
        return self._read("plan.json")

    def keep_plan(self, plan: Mapping[str, Any], ticket: bytes) -> None:
        """Keep the plan made for this folder, so that a second run goes on with the same one.

        Raises:
            OutputError: it cannot be written.
        """
        self._write("plan.json", plan)
        self.write(f"{_OURS}/plan.ticket", ticket)

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the export, whole and durably.

        Args:
            path: from the folder.
            data: what it holds.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.folder / path):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / path, data, staging=self.staging)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a whole export; None when it is not whole."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.ours / name
        try:
            known = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}); name another folder with --out") from error
        if not isinstance(known, dict):
            raise OutputError(f"{path} is not of an export; name another folder with --out")
        return known

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self.write(f"{_OURS}/{name}", (json.dumps(value, indent=2) + "\n").encode())


def _locked(lock: IO[str]) -> bool:
    try:
        import fcntl
    except ModuleNotFoundError:  # not a Unix: nothing here needs the lock but two people at once
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
