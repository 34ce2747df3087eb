"""Complete an export: write `rows.csv` for class folders and the manifest; verify the files of an earlier run.

The records of all parts enter, and the manifest leaves, whose presence marks the export as complete.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from fount.augmentation.plan import SOURCES
from fount.errors import output_errors
from fount.export.export_folder import MANIFEST, ExportFolder, PartRecord
from fount.export.formats import DATA, Format, csv_header
from fount.export.table import TableSchema
from fount.files import atomic_path, sha256_of

__all__ = ["intact_records", "read_manifest", "write_manifest"]

_ROWS_FILE = "rows.csv"


def write_manifest(
    folder: ExportFolder,
    format: Format,
    schema: TableSchema,
    records: Sequence[PartRecord],
    description: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the last files of an export.

    Args:
        folder: of the export, locked.
        format: of its files.
        schema: of its rows.
        records: every part, in order.
        description: further keys of the manifest: plan, models, and so on.

    Returns:
        The manifest.

    Raises:
        OutputError: it cannot be written; the export is incomplete.
    """
    with output_errors(folder.path):
        if not format.suffix:
            _join_row_lists(folder, schema, records)
        manifest = _manifest(folder, format, schema, records, description)
    folder.write(MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def read_manifest(
    folder: ExportFolder,
    format: Format,
    schema: TableSchema,
    records: Sequence[PartRecord],
    description: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Read the manifest that `write_manifest` wrote for these arguments.

    Returns:
        The manifest; None when it, or `rows.csv`, is missing or was changed.
    """
    found = folder.manifest()
    try:
        expected = _manifest(folder, format, schema, records, description)
    except OSError:
        return None
    return found if found == json.loads(json.dumps(expected)) else None


def _manifest(
    folder: ExportFolder,
    format: Format,
    schema: TableSchema,
    records: Sequence[PartRecord],
    description: Mapping[str, Any],
) -> dict[str, Any]:
    files = []
    if not format.suffix:
        digest, size = sha256_of(folder.path / _ROWS_FILE)
        files.append({"file": _ROWS_FILE, "bytes": size, "sha256": digest})
    return {
        **description,
        "written": sum(record.rows for record in records),
        "rejected": sum(record.rejected for record in records),
        "by_class": _total([record.by_class for record in records], schema.classes),
        "by_source": _total([record.by_source for record in records], SOURCES.values()),
        "files": files,
        "parts": [asdict(record) for record in records],
    }


def _join_row_lists(folder: ExportFolder, schema: TableSchema, records: Sequence[PartRecord]) -> None:
    """Concatenate the lines of all parts, and sync the image files, which were written without it."""
    with atomic_path(folder.path / _ROWS_FILE, staging=folder.staging) as temporary, temporary.open("wb") as file:
        file.write(csv_header(schema))
        for record in records:
            file.write((folder.path / record.file).read_bytes())
        if hasattr(os, "sync"):
            os.sync()


def _total(counts: Sequence[Mapping[str, int]], names: Iterable[str]) -> dict[str, int]:
    """Sum counts over all parts, in the order of the names; no zeros."""
    totals = {name: sum(each.get(name, 0) for each in counts) for name in names}
    return {name: total for name, total in totals.items() if total}


def intact_records(folder: ExportFolder, format: Format, records: Sequence[PartRecord], jobs: int) -> list[PartRecord]:
    """Keep the records whose files still have their size and digest; `jobs` files are read at a time."""
    with ThreadPoolExecutor(jobs, "fount-verify") as pool:
        intact = list(pool.map(lambda record: _is_intact(folder, format, record), records))
    return [record for record, is_intact in zip(records, intact, strict=True) if is_intact]


def _is_intact(folder: ExportFolder, format: Format, record: PartRecord) -> bool:
    path = folder.path / record.file
    try:
        if path.stat().st_size != record.bytes or sha256_of(path) != (record.sha256, record.bytes):
            return False
        if format.suffix:
            return True
        with path.open(newline="") as file:  # the part is a list of files with their digests
            return all(sha256_of(folder.path / DATA / name)[0] == digest for name, digest, *_ in csv.reader(file))
    except OSError:
        return False
