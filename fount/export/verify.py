"""Whether what an export says is whole still is: sizes and digests of every file, read again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fount.export.formats import DATA, Format
from fount.export.journal import Record
from fount.files import sha256_of

__all__ = ["sound_records"]


def sound_records(folder: Path, format: Format, records: Sequence[Record], jobs: int) -> list[Record]:
    """Keep the records whose files are as they were written.

    Args:
        folder: the export's.
        format: what its files are.
        records: what it says is whole.
        jobs: how many are read at a time.
    """
    with ThreadPoolExecutor(jobs, "fount-verify") as pool:
        sound = list(pool.map(lambda record: _is_sound(folder, format, record), records))
    return [record for record, is_sound in zip(records, sound, strict=True) if is_sound]


def _is_sound(folder: Path, format: Format, record: Record) -> bool:
    path = folder / record.file
    try:
        if path.stat().st_size != record.bytes or sha256_of(path) != (record.sha256, record.bytes):
            return False
        return bool(format.ending) or _are_listed_sound(folder, path)
    except OSError:
        return False


def _are_listed_sound(folder: Path, lines: Path) -> bool:
    with lines.open(newline="") as file:
        return all(sha256_of(folder / DATA / path)[0] == digest for path, digest, *_ in csv.reader(file))
