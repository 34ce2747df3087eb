"""How the rows of a plan are cut into files, and the files shared among jobs.

The cut depends on the plan and the number of shards alone: a second run makes the same parts as the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Part", "cut", "rows_a_part", "stretches"]

_MOST_ROWS = 10_000
_MOST_PIXEL_BYTES = 2**26
_STRETCHES_A_JOB = 4  # so that jobs end at about the same time


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of a plan's rows that makes one file.

    Attributes:
        number: its place among all parts, from 0.
        shard: which shard it lies in.
        first: its first row.
        end: one beyond its last row.
    """

    number: int
    shard: int
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


def rows_a_part(shape: Sequence[int]) -> int:
    """How many rows a part has at most: 10 000, or fewer of large pictures.

    Args:
        shape: (H, W, C) of one picture.
    """
    return max(1, min(_MOST_ROWS, _MOST_PIXEL_BYTES // math.prod(shape)))


def cut(rows: int, shards: int, most: int) -> list[Part]:
    """Cut rows into shards as the gateway does, and each shard into parts of at most so many rows.

    Args:
        rows: how many rows the plan has.
        shards: into how many shards it is cut, 1 or more.
        most: rows a part, 1 or more.
    """
    bounds = [
        (shard, first, min(first + most, rows * (shard + 1) // shards))
        for shard in range(shards)
        for first in range(rows * shard // shards, rows * (shard + 1) // shards, most)
    ]
    return [Part(number=n, shard=shard, first=first, end=end) for n, (shard, first, end) in enumerate(bounds)]


def stretches(parts: Sequence[Part], jobs: int) -> list[list[Part]]:
    """Group parts that follow one another within a shard, each group to be pulled by one stream.

    Args:
        parts: in order; those that are there already left out.
        jobs: how many streams are pulled at a time.
    """
    longest = max(1, math.ceil(len(parts) / (jobs * _STRETCHES_A_JOB)))
    return list(_grouped(parts, longest))


def _grouped(parts: Sequence[Part], longest: int) -> Iterator[list[Part]]:
    group: list[Part] = []
    for part in parts:
        follows = group and (group[-1].shard, group[-1].end) == (part.shard, part.first)
        if group and (not follows or len(group) == longest):
            yield group
            group = []
        group.append(part)
    if group:
        yield group
