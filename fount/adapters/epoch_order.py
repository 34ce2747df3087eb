"""The order in which an epoch visits the rows of a plan, its division among consumers, and the pulling of its rows.

An epoch is a sequence of N places. In epoch 0, place p holds row p. In every other epoch, blocks of rows are shuffled
by a key made of plan and epoch, so each epoch visits every row once. The rows of a plan are mixed already, so shuffling
blocks is enough, and one block is one contiguous range to pull. Consumers take disjoint spans of places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from fount.address import Addresses, Stream
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import MAX_SHARDS, shard_range
from fount.client.sync import Client

__all__ = ["EpochOrder", "RemainingPlaces", "RowRange", "Span", "pull_places", "split_spans", "subtract"]

_MAX_BLOCK_ROWS, _MIN_BLOCK_ROWS = 4096, 64

Span = tuple[int, int]
"""Places first to end - 1."""


@dataclass(frozen=True, kw_only=True)
class RowRange:
    """Rows first_row to end_row - 1 of one of several shards, at consecutive places from first_place: one pull."""

    first_place: int
    shard: int
    shards: int
    first_row: int
    end_row: int


class EpochOrder:
    """The order of one epoch of a plan."""

    def __init__(self, plan_id: str, rows: int, epoch: int) -> None:
        self._rows = rows
        block_rows = min(_MAX_BLOCK_ROWS, max(_MIN_BLOCK_ROWS, rows // 64))
        self._blocks = min(MAX_SHARDS, -(-rows // block_rows)) if epoch and rows else 1
        self._order = _shuffled(plan_id, epoch, self._blocks) if epoch else np.zeros(1, np.int64)
        sizes = [len(shard_range(rows, block, self._blocks)) for block in self._order.tolist()]
        self._first_places = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def row_ranges(self, spans: Iterable[Span]) -> Iterator[RowRange]:
        """Find the rows at some places, in the order of the places."""
        for first, end in spans:
            place = first
            while place < end:
                number = int(np.searchsorted(self._first_places, place, side="right")) - 1
                until = min(end, int(self._first_places[number + 1]))
                block = int(self._order[number])
                first_row = shard_range(self._rows, block, self._blocks).start + place - int(self._first_places[number])
                yield RowRange(
                    first_place=place,
                    shard=block,
                    shards=self._blocks,
                    first_row=first_row,
                    end_row=first_row + until - place,
                )
                place = until


def _shuffled(plan_id: str, epoch: int, blocks: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Sort the blocks by 64-bit keys drawn for each."""
    seed = int.from_bytes(hashlib.sha256(f"{plan_id}/{epoch}".encode()).digest()[:8], "little")
    words = Addresses.of_range(seed, 0, blocks).words(Stream.ORDER, 2).astype(np.uint64)  # (blocks, 2)
    keys = (words[:, 1] << np.uint64(32)) | words[:, 0]
    return np.argsort(keys, kind="stable").astype(np.int64)


def split_spans(spans: Sequence[Span], part: int, parts: int) -> list[Span]:
    """Return one of several equal parts of the places in spans, in their order."""
    chosen = shard_range(sum(end - first for first, end in spans), part, parts)
    found, before = [], 0  # places in earlier spans
    for first, end in spans:
        found.append((first + max(chosen.start - before, 0), min(end, first + chosen.stop - before)))
        before += end - first
    return _without_empty(found)


def subtract(spans: Sequence[Span], taken: Iterable[Span]) -> list[Span]:
    """Return the places in spans, which are ascending, that are in none of the taken spans."""
    remaining: list[Span] = []
    gone = sorted(taken)
    at = 0
    for first, end in spans:
        while at < len(gone) and gone[at][1] <= first:
            at += 1
        here = at
        while here < len(gone) and gone[here][0] < end:
            remaining.append((first, gone[here][0]))
            first = max(first, gone[here][1])
            here += 1
        remaining.append((first, end))
    return _without_empty(remaining)


def _without_empty(spans: Iterable[Span]) -> list[Span]:
    return [(first, end) for first, end in spans if first < end]


class RemainingPlaces:
    """The spans, ascending and updated in place, that an iteration has not returned yet."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = list(spans)

    def enter(self, place: int) -> int:
        """Start a batch at a place; return the first place not accounted for: this one, or rejected rows before it."""
        while self.spans[0][1] <= place:
            del self.spans[0]
        return self.spans[0][0]

    def advance(self, end: int) -> None:
        """Account for every place before `end`."""
        self.spans[0] = (end, self.spans[0][1])


def pull_places(
    client: Client, ticket: bytes, order: EpochOrder, spans: Iterable[Span], provenance: Level
) -> Iterator[tuple[int, RowBatch]]:
    """Pull the rows at some places, in order: batches of consecutive places, each with the place of its first row."""
    for rows in order.row_ranges(spans):
        batches = client.pull(
            ticket,
            shard=rows.shard,
            shards=rows.shards,
            start_index=rows.first_row,
            end_index=rows.end_row,
            provenance=provenance,
        )
        with closing(batches):
            for batch in batches:
                yield rows.first_place + batch.start_index - rows.first_row, batch
