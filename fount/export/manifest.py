"""The last steps of an export: `rows.csv` where files are single rows, and the manifest that says all is whole."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fount.augmentation.plan import SOURCES
from fount.cli.output.writer import writing
from fount.export.folder import heading_line
from fount.export.formats import DATA, Format
from fount.export.journal import Record
from fount.export.table import Contents
from fount.export.target_folder import MANIFEST, Place
from fount.files import sha256_of, sync_folder

__all__ = ["finish", "finished", "sound_records"]


ROWS = "rows.csv"


def finish(
    place: Place,
    format: Format,
    contents: Contents,
    records: Sequence[Record],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Make an export whole.

    Args:
        place: its folder, held.
        format: what its files are.
        contents: what its columns are.
        records: every part, in order.
        told: what else the manifest says: plan, models, and so on.

    Returns:
        The manifest.

    Raises:
        OutputError: it cannot be written; the export is not whole.
    """
    with writing(place.folder):
        if not format.ending:
            _join_rows(place, contents, records)
        manifest = _manifest(place, format, contents, records, told)
    place.write(MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def finished(
    place: Place, format: Format, contents: Contents, records: Sequence[Record], told: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The manifest that `finish` wrote; None when it, or `rows.csv`, is not there as it was written.

    Args:
        place: as for `finish`, and so are the others.
        format: see there.
        contents: see there.
        records: see there.
        told: see there.
    """
    known = place.manifest()
    try:
        due = _manifest(place, format, contents, records, told)
    except OSError:
        return None
    return known if known == json.loads(json.dumps(due)) else None


def _manifest(
    place: Place, format: Format, contents: Contents, records: Sequence[Record], told: Mapping[str, Any]
) -> dict[str, Any]:
    files = [] if format.ending else [_digest_of_rows(place)]
    return {
        **told,
        "written": sum(record.rows for record in records),
        "rejected": sum(record.rejected for record in records),
        "by_class": _sum([record.by_class for record in records], contents.classes),
        "by_source": _sum([record.by_source for record in records], SOURCES.values()),
        "files": files,
        "parts": [asdict(record) for record in records],
    }


def _digest_of_rows(place: Place) -> dict[str, Any]:
    digest, size = sha256_of(place.folder / ROWS)
    return {"file": ROWS, "bytes": size, "sha256": digest}


def _join_rows(place: Place, contents: Contents, records: Sequence[Record]) -> None:
    """Join the lines of all parts, and bring every row's file to the disk: one by one they were not."""
    part = place.staging / f"{ROWS}.part"
    with part.open("wb") as file:
        file.write(heading_line(contents))
        for record in records:
            file.write((place.folder / record.file).read_bytes())
        file.flush()
        os.fsync(file.fileno())
    if hasattr(os, "sync"):
        os.sync()
    part.replace(place.folder / ROWS)
    sync_folder(place.folder)


def _sum(counts: Sequence[Mapping[str, int]], names: Iterable[str]) -> dict[str, int]:
    """Counts over all parts, in the order of the names, without those that have none."""
    totals = {name: sum(each.get(name, 0) for each in counts) for name in names}
    return {name: total for name, total in totals.items() if total}


# FOLDED FROM fount.export.manifest:
# Whether what an export says is whole still is: sizes and digests of every file, read again.


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
