"""Split the rows of a plan into the parts of an export, and pull missing parts over several streams at a time.

The split depends only on the plan and the number of shards, so a second run makes the same parts as the first. Each
part is written when its last row arrived: a crash leaves complete parts, and the next run pulls the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from threading import Event

from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import shard_range
from fount.errors import BadReply
from fount.export.table import Table, TableSchema, build_table

__all__ = ["Part", "export_parts", "group_for_streams", "rows_per_part", "split_into_parts"]

_MAX_ROWS = 10_000
_MAX_PIXEL_BYTES = 2**26
_GROUPS_PER_JOB = 4  # so that jobs end at about the same time


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows first to end - 1 of a plan, in one shard, which make one file; `number` counts parts from 0."""

    number: int
    shard: int
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


def rows_per_part(shape: Sequence[int]) -> int:
    """Return the most rows of a part: 10 000, or fewer for large images of shape (H, W, C)."""
    return max(1, min(_MAX_ROWS, _MAX_PIXEL_BYTES // math.prod(shape)))


def split_into_parts(rows: int, shards: int, max_rows: int) -> list[Part]:
    """Split rows into the gateway's shards, and each shard into parts of at most `max_rows` rows."""
    bounds = [
        (shard, first, min(first + max_rows, whole.stop))
        for shard in range(shards)
        for whole in [shard_range(rows, shard, shards)]
        for first in whole[::max_rows]
    ]
    return [Part(number=n, shard=shard, first=first, end=end) for n, (shard, first, end) in enumerate(bounds)]


def group_for_streams(parts: Sequence[Part], jobs: int) -> list[list[Part]]:
    """Group missing parts that are consecutive within a shard; one of `jobs` simultaneous streams pulls a group."""
    longest = max(1, math.ceil(len(parts) / (jobs * _GROUPS_PER_JOB)))
    groups: list[list[Part]] = []
    for part in parts:
        last = groups[-1] if groups else []
        if last and len(last) < longest and (last[-1].shard, last[-1].end) == (part.shard, part.first):
            last.append(part)
        else:
            groups.append([part])
    return groups


def export_parts(
    pull: Callable[[Sequence[Part]], Generator[RowBatch]],
    write: Callable[[Part, Table], None],
    parts: Sequence[Part],
    *,
    schema: TableSchema,
    jobs: int,
    on_rows: Callable[[int], None],
) -> None:
    """Pull missing parts, in order, over `jobs` simultaneous streams, and write them; complete parts survive an error.

    The functions are called from several threads: `pull` opens a stream of consecutive parts of one shard, `write`
    writes the rows of a part, and `on_rows` is called with the number of rows that arrived.
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
                write(part, table)

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
        """Read the rows of a part; fewer when the stream ends or the export is stopped."""
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
