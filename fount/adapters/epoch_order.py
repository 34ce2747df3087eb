"""In which order an epoch visits the rows of a plan, and who takes which of them.

An epoch is a sequence of N places. In epoch 0, place p holds row p; in any other, blocks of rows change places by a
shuffle keyed by (plan, epoch), so every epoch visits every row once. A plan's rows are mixed already, so blocks are
enough, and one block is one stretch to pull. Who takes what is said in spans of places: consumers take disjoint spans
that make up the whole.
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

__all__ = ["EpochOrder", "Left", "Span", "Stretch", "cut", "pull_places", "share", "subtract"]


_BLOCK_ROWS, _LEAST_BLOCK_ROWS = 4096, 64

Span = tuple[int, int]
"""Places first to end - 1."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive rows at consecutive places, as one pull gives them.

    Attributes:
        first_place: the place of the first row.
        shard: the shard, and
        shards: of how many, the rows belong to.
        first_row: the first row.
        end_row: one beyond the last.
    """

    first_place: int
    shard: int
    shards: int
    first_row: int
    end_row: int


class EpochOrder:
    """The order of one epoch of a plan."""

    def __init__(self, plan_id: str, rows: int, epoch: int) -> None:
        self._rows = rows
        block_rows = min(_BLOCK_ROWS, max(_LEAST_BLOCK_ROWS, rows // 64))
        self._blocks = min(MAX_SHARDS, -(-rows // block_rows)) if epoch and rows else 1
        self._order = _shuffled(plan_id, epoch, self._blocks) if epoch else np.zeros(1, np.int64)
        sizes = [self._first_row(block + 1) - self._first_row(block) for block in self._order.tolist()]
        self._first_places = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def stretches(self, spans: Iterable[Span]) -> Iterator[Stretch]:
        """The rows at some places, in the order of the places."""
        for first, end in spans:
            place = first
            while place < end:
                number = int(np.searchsorted(self._first_places, place, side="right")) - 1
                until = min(end, int(self._first_places[number + 1]))
                block = int(self._order[number])
                first_row = self._first_row(block) + place - int(self._first_places[number])
                yield Stretch(
                    first_place=place,
                    shard=block,
                    shards=self._blocks,
                    first_row=first_row,
                    end_row=first_row + until - place,
                )
                place = until

    def _first_row(self, block: int) -> int:
        return shard_range(self._rows, block, self._blocks).start


def share(rows: int, consumer: int, consumers: int) -> list[Span]:
    """The places of one consumer of a whole epoch."""
    places = shard_range(rows, consumer, consumers)
    return _spans([(places.start, places.stop)])


def cut(spans: Sequence[Span], part: int, parts: int) -> list[Span]:
    """One of some equal parts of the places in spans, in their order."""
    total = sum(end - first for first, end in spans)
    wanted = shard_range(total, part, parts)
    starts = np.concatenate([[0], np.cumsum([end - first for first, end in spans], dtype=np.int64)]).tolist()
    return _spans(
        (first + max(wanted.start - before, 0), min(end, first + wanted.stop - before))
        for (first, end), before in zip(spans, starts, strict=False)
    )


def subtract(spans: Sequence[Span], taken: Iterable[Span]) -> list[Span]:
    """The places in spans that are in none of the others; both in ascending order."""
    left: list[Span] = []
    gone = [*_merged(taken)]
    at = 0
    for first, end in spans:
        while at < len(gone) and gone[at][1] <= first:
            at += 1
        here = at
        while here < len(gone) and gone[here][0] < end:
            left.append((first, gone[here][0]))
            first = max(first, gone[here][1])
            here += 1
        left.append((first, end))
    return _spans(left)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The same places in as few spans as there can be, ascending."""
    current: Span | None = None
    for first, end in sorted(spans):
        if current is not None and first <= current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (first, end)
    if current is not None:
        yield current


def _spans(spans: Iterable[Span]) -> list[Span]:
    return [(first, end) for first, end in spans if first < end]


def _shuffled(plan_id: str, epoch: int, blocks: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The blocks in the order of 64-bit keys drawn for each."""
    seed = int.from_bytes(hashlib.sha256(f"{plan_id}/{epoch}".encode()).digest()[:8], "little")
    words = Addresses.of_range(seed, 0, blocks).words(Stream.ORDER, 2).astype(np.uint64)  # (blocks, 2)
    keys = (words[:, 1] << np.uint64(32)) | words[:, 0]
    return np.argsort(keys, kind="stable").astype(np.int64)


# FOLDED FROM fount.adapters.epoch_order:
# Rows at the places of an epoch: pulled stretch by stretch, no further than a consumer's spans go.


class Left:
    """The places that an iteration has not given yet.

    Attributes:
        spans: ascending; whoever keeps the list sees it shrink.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = list(spans)

    def enter(self, place: int) -> int:
        """Come to rows at a place.

        Returns:
            The first place not accounted for: this one, or that of the rows without a sample just before it.
        """
        while self.spans[0][1] <= place:
            del self.spans[0]
        return self.spans[0][0]

    def advance(self, end: int) -> None:
        """Account for everything up to a place."""
        self.spans[0] = (end, self.spans[0][1])


def pull_places(
    client: Client, ticket: bytes, order: EpochOrder, spans: Iterable[Span], provenance: Level
) -> Iterator[tuple[int, RowBatch]]:
    """Pull the rows at some places, in the order of the places.

    Returns:
        Batches, each with the place of its first row; the others follow it one by one.

    Raises:
        FountError: the rest did not come.
    """
    for stretch in order.stretches(spans):
        for batch in _pull_stretch(client, ticket, stretch, provenance):
            yield stretch.first_place + batch.start_index - stretch.first_row, batch


def _pull_stretch(client: Client, ticket: bytes, stretch: Stretch, provenance: Level) -> Iterator[RowBatch]:
    batches = client.pull(
        ticket,
        shard=stretch.shard,
        shards=stretch.shards,
        start_index=stretch.first_row,
        end_index=stretch.end_row,
        provenance=provenance,
    )
    with closing(batches):
        yield from batches
