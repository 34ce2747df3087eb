"""Rows at the places of an epoch: pulled stretch by stretch, no further than a consumer's spans go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from fount.adapters.epoch_order import EpochOrder, Span, Stretch
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.client.sync import Client

__all__ = ["Left", "pull_places"]


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
