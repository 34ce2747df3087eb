"""Pull the missing parts of an export over several streams, and write each part when its last row arrived.

A crash leaves complete parts; the next run pulls the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from threading import Event

import numpy as np

from fount.augmentation.plan import SOURCES
from fount.augmentation.rows import RowBatch
from fount.errors import BadReply, output_errors
from fount.export.export_folder import ExportFolder, Journal, PartRecord
from fount.export.formats import DATA, Format
from fount.export.partition import Part, group_for_streams
from fount.export.table import Table, TableSchema, build_table

__all__ = ["PartWriter", "PullParts", "export_parts"]

PullParts = Callable[[Sequence[Part]], Generator[RowBatch]]
"""Opens a stream of the rows of consecutive parts of one shard; called from several threads."""


class PartWriter:
    """Writes parts to the folder and records them in the journal; thread-safe."""

    def __init__(self, folder: ExportFolder, format: Format, journal: Journal, files: Sequence[str]) -> None:
        """Prepare to write.

        Args:
            folder: of the export, locked.
            format: encodes parts.
            journal: records complete parts.
            files: the path of each part, relative to the folder.
        """
        self._folder, self._format, self._journal, self._files = folder, format, journal, files

    def write(self, part: Part, table: Table) -> None:
        """Write a part, and record that it is complete.

        Raises:
            OutputError: it cannot be written; it counts as missing.
        """
        file = self._files[part.number]
        with output_errors(self._folder.path / file):
            data = self._format.encode(table, self._save_image)
            self._folder.write(file, data)
            self._journal.add(
                PartRecord(
                    part=part.number,
                    first=part.first,
                    end=part.end,
                    file=file,
                    bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    rows=len(table),
                    rejected=table.rejected,
                    by_class=_counts(table, "label", dict(enumerate(table.schema.classes))),
                    by_source=_counts(table, "source", {int(code): name for code, name in SOURCES.items()}),
                )
            )

    def _save_image(self, path: str, data: bytes) -> None:
        self._folder.write(f"{DATA}/{path}", data, durable=False)


def _counts(table: Table, column: str, names: Mapping[int, str]) -> dict[str, int]:
    if column not in table.columns:
        return {}
    ids, counts = np.unique(table.columns[column], return_counts=True)
    return {names.get(id, str(id)): count for id, count in zip(ids.tolist(), counts.tolist(), strict=True)}


def export_parts(
    pull: PullParts,
    writer: PartWriter,
    parts: Sequence[Part],
    *,
    schema: TableSchema,
    jobs: int,
    on_rows: Callable[[int], None],
) -> None:
    """Pull parts and write them, over several streams at a time.

    Args:
        pull: opens streams.
        writer: writes complete parts.
        parts: the missing ones, in order.
        schema: of the rows.
        jobs: number of simultaneous streams.
        on_rows: called from any thread with the number of rows that arrived.

    Raises:
        FountError: a stream failed or a part cannot be written; complete parts remain.
    """
    stopped = Event()

    def run(group: Sequence[Part]) -> None:
        with closing(pull(group)) as batches:
            reader = _PartReader(batches, stopped, on_rows)
            for part in group:
                rows = reader.read(part)
                if stopped.is_set():
                    return
                table = build_table(rows, schema)
                if len(table) + table.rejected != len(part):
                    raise BadReply(f"The stream ended within rows {part.first} to {part.end - 1}; run it again")
                writer.write(part, table)

    with ThreadPoolExecutor(jobs, "fount-export") as pool:
        futures = [pool.submit(run, group) for group in group_for_streams(parts, jobs)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    for future in done:
        future.result()


class _PartReader:
    """Reads a stream of batches part by part; batches may extend over the end of a part."""

    def __init__(self, batches: Iterator[RowBatch], stopped: Event, on_rows: Callable[[int], None]) -> None:
        self._batches, self._stopped, self._on_rows = batches, stopped, on_rows
        self._rest: RowBatch | None = None  # a batch that extends beyond the part before

    def read(self, part: Part) -> list[RowBatch]:
        """Read the rows of a part; fewer when the stream ends or the export is stopped.

        Raises:
            BadReply: rows other than those of the part arrived.
        """
        pieces: list[RowBatch] = []
        row = part.first
        while row < part.end:
            batch = self._rest or next(self._batches, None)
            if batch is None or self._stopped.is_set():
                break
            skip = row - batch.start_index
            if not 0 <= skip < len(batch):
                raise BadReply(f"Expected row {row}, but rows from {batch.start_index} on arrived")
            count = min(len(batch) - skip, part.end - row)
            pieces.append(batch.take(slice(skip, skip + count)))
            row += count
            self._on_rows(count)
            self._rest = batch if skip + count < len(batch) else None
        return pieces
