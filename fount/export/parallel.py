"""Pulling the missing parts of an export in parallel, and making it whole.

Each job pulls a stretch of parts by one stream, and writes a part when its last row came; what a crash leaves is whole
parts, and the rest is pulled by the next run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from threading import Event
from typing import Protocol

import numpy as np

from fount.augmentation.plan import SOURCES
from fount.augmentation.rows import RowBatch
from fount.cli.output.writer import writing
from fount.errors import BadReply
from fount.export.formats import DATA, Format
from fount.export.journal import Journal, Record
from fount.export.table import Contents, Part, Table, stretches, table_of
from fount.export.target_folder import Place
from fount.files import atomic_write

__all__ = ["PartWriter", "Pulling", "export_parts"]


class Pulling(Protocol):
    """Opens streams of a plan's rows."""

    def __call__(self, *, shard: int, start_index: int, end_index: int) -> Generator[RowBatch, None, None]:
        """Pull the rows of a shard from one of them up to another; safe to call from many threads."""
        ...


class PartWriter:
    """Writes parts into their place, and notes them in the journal; threads may share it."""

    def __init__(self, place: Place, format: Format, journal: Journal, files: Sequence[str]) -> None:
        """Prepare to write.

        Args:
            place: the export's folder.
            format: how parts are encoded.
            journal: what is whole.
            files: where each part goes, from the folder.
        """
        self._place, self._format, self._journal, self._files = place, format, journal, files

    def write(self, part: Part, table: Table) -> Record:
        """Write a part, and note that it is whole.

        Raises:
            OutputError: it cannot be written; it counts as missing.
        """
        path = self._files[part.number]
        with writing(self._place.folder / path):
            data = self._format.encode(table, self._save)
            self._place.write(path, data)
            record = Record(
                part=part.number,
                first=part.first,
                end=part.end,
                file=path,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                rows=len(table),
                rejected=table.rejected,
                by_class=_counts(table, "label", dict(enumerate(table.contents.classes))),
                by_source=_counts(table, "source", {int(number): name for number, name in SOURCES.items()}),
            )
            self._journal.add(record)
        return record

    def _save(self, path: str, data: bytes) -> None:
        place = self._place.folder / DATA / path
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, data, staging=self._place.staging, durable=False)


def export_parts(
    pull: Pulling,
    writer: PartWriter,
    parts: Sequence[Part],
    *,
    contents: Contents,
    jobs: int,
    came: Callable[[int], None],
) -> None:
    """Pull parts and write them, several at a time.

    Args:
        pull: opens streams.
        writer: takes whole parts.
        parts: those to be made, in order.
        contents: what the columns are.
        jobs: how many streams at a time.
        came: told how many rows came, from any thread.

    Raises:
        FountError: a stream failed or a part cannot be written; parts already whole stay.
    """
    over = Event()

    def run(stretch: Sequence[Part]) -> None:
        first, last = stretch[0], stretch[-1]
        with closing(pull(shard=first.shard, start_index=first.first, end_index=last.end)) as batches:
            pieces = _Pieces(_until(over, batches), came)
            for part in stretch:
                rows = pieces.take(part)
                if over.is_set():
                    return
                writer.write(part, _whole(part, table_of(rows, contents)))

    with ThreadPoolExecutor(jobs, "fount-export") as pool:
        futures = [pool.submit(run, stretch) for stretch in stretches(parts, jobs)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
    for future in done:
        future.result()


def _until(over: Event, batches: Iterator[RowBatch]) -> Iterator[RowBatch]:
    for batch in batches:
        if over.is_set():
            return
        yield batch


def _whole(part: Part, table: Table) -> Table:
    if len(table) + table.rejected != len(part):
        raise BadReply(f"The stream ended within rows {part.first} to {part.end - 1}; ask again")
    return table


class _Pieces:
    """Cuts a stream of batches where parts end."""

    def __init__(self, batches: Iterator[RowBatch], came: Callable[[int], None]) -> None:
        self._batches, self._came = batches, came
        self._rest: RowBatch | None = None  # a batch that reaches beyond the part before

    def take(self, part: Part) -> list[RowBatch]:
        """The rows of a part; fewer when the export is over.

        Raises:
            BadReply: other rows came than those of the part.
        """
        pieces: list[RowBatch] = []
        at = part.first
        while at < part.end:
            batch = self._rest or next(self._batches, None)
            if batch is None:
                break
            skip = at - batch.start_index
            if not 0 <= skip < len(batch):
                raise BadReply(f"Row {at} is due, but rows from {batch.start_index} on came")
            count = min(len(batch) - skip, part.end - at)
            pieces.append(batch.take(slice(skip, skip + count)))
            at += count
            self._came(count)
            self._rest = batch if skip + count < len(batch) else None
        return pieces


def _counts(table: Table, column: str, names: Mapping[int, str]) -> dict[str, int]:
    if column not in table.columns:
        return {}
    ids, counts = np.unique(table.columns[column], return_counts=True)
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return {names.get(number, str(number)): count for number, count in pairs}
