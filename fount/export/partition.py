"""Split the rows of a plan into the parts of an export, and group parts into the streams that pull them.

The split depends only on the plan and the number of shards, so a second run makes the same parts as the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fount.augmentation.shards import shard_range

__all__ = ["Part", "group_for_streams", "rows_per_part", "split_into_parts"]

_MAX_ROWS = 10_000
_MAX_PIXEL_BYTES = 2**26
_GROUPS_PER_JOB = 4  # so that jobs end at about the same time


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of a plan's rows that makes one file.

    Attributes:
        number: its position among all parts, from 0.
        shard: the shard it is in.
        first: its first row.
        end: one beyond its last row.
    """

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
    """Group parts that are consecutive within a shard; one stream pulls each group.

    Args:
        parts: the missing ones, in order.
        jobs: number of simultaneous streams.
    """
    longest = max(1, math.ceil(len(parts) / (jobs * _GROUPS_PER_JOB)))
    groups: list[list[Part]] = []
    for part in parts:
        last = groups[-1] if groups else []
        if last and len(last) < longest and (last[-1].shard, last[-1].end) == (part.shard, part.first):
            last.append(part)
        else:
            groups.append([part])
    return groups
