"""The rows of one part as columns, whatever the format: which columns there are, and how batches become them.

The columns depend on the plan and on how much provenance was asked for, never on the rows: every part of an export
has the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.plan import SOURCES
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import shard_range

__all__ = ["PROVENANCE", "Contents", "Part", "Table", "cut", "rows_a_part", "stretches", "table_of", "values_of"]


PROVENANCE = ("none", "ids", "full")
"""How much every row tells of where it came from, in order."""

Array = NDArray[Any]

_NONE = -1  # of integer columns: there is no such thing for the row; floats have NaN


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What every part of an export has in common.

    Attributes:
        classes: class names by id.
        groups: group names by id; empty without a group column.
        shape: (H, W, C) of every picture.
        provenance: one of `PROVENANCE`.
        transforms: names of the drawn parameters; empty unless provenance is "full".
    """

    classes: Sequence[str]
    groups: Sequence[str]
    shape: tuple[int, int, int]
    provenance: str
    transforms: Sequence[str] = ()

    def columns(self) -> dict[str, np.dtype[Any]]:
        """Every column beside the image, in order, with its type.

        label and group are ids; source is a code of `fount.v1.Source`; what a row has none of is -1, or NaN.
        """
        told = PROVENANCE.index(self.provenance)
        names = {"index": "i8", "label": "i8", **({"group": "i8"} if self.groups else {}), "weight": "i8"}
        if told >= 1:
            names |= {"source": "u1", "source_row": "i8", "seed": "u8", "sample_index": "u8", "attempt": "i8"}
        if told >= 2:
            names |= {"confidence": "f4", "copy_ratio": "f4", **{f"transform_{name}": "f4" for name in self.transforms}}
        return {name: np.dtype(kind) for name, kind in names.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows of one part without the rejected ones, in order.

    Attributes:
        contents: what every part has in common.
        images: (N, H, W, C) uint8.
        columns: by name, as `Contents.columns` says, each (N,).
        rejected: how many slots of the part were left out because no sample was accepted for them.
    """

    contents: Contents
    images: NDArray[np.uint8]
    columns: Mapping[str, Array]
    rejected: int

    def __len__(self) -> int:
        return len(self.images)


def table_of(batches: Sequence[RowBatch], contents: Contents) -> Table:
    """Put batches together, and leave rejected rows out.

    Args:
        batches: consecutive ones.
        contents: what the columns are.
    """
    kept = [batch.accepted() for batch in batches]
    wide = [_columns(batch, contents) for batch in kept]
    columns = {
        name: np.concatenate([np.empty(0, kind), *(every[name].astype(kind, copy=False) for every in wide)])
        for name, kind in contents.columns().items()
    }
    return Table(
        contents=contents,
        images=np.concatenate([np.empty((0, *contents.shape), np.uint8), *(batch.images for batch in kept)]),
        columns=columns,
        rejected=sum(map(len, batches)) - sum(map(len, kept)),
    )


def values_of(table: Table, name: str) -> list[Any]:
    """A column for people and JSON: sources by name, None where a row has none."""
    column = table.columns[name]
    if name == "source":
        return [SOURCES.get(code, str(code)) for code in column.tolist()]
    missing = np.isnan(column) if column.dtype.kind == "f" else column == _NONE
    values: list[Any] = column.tolist()
    if name in ("index", "label", "weight", "seed", "sample_index") or not missing.any():
        return values
    return [None if is_missing else value for value, is_missing in zip(values, missing.tolist(), strict=True)]


def _columns(batch: RowBatch, contents: Contents) -> dict[str, Array]:
    n = len(batch)
    none, nan = np.full(n, _NONE), np.full(n, np.nan, np.float32)
    columns: dict[str, Array] = {
        "index": batch.rows,
        "label": batch.labels,
        "group": none if batch.groups is None else np.where(batch.groups < len(contents.groups), batch.groups, _NONE),
        "weight": np.ones(n, np.int64) if batch.weights is None else batch.weights,
        "source": np.zeros(n, np.uint8) if batch.sources is None else batch.sources,
        "source_row": none if batch.source_rows is None else batch.source_rows,
        "seed": np.zeros(n, np.uint64) if batch.seeds is None else batch.seeds,
        "sample_index": np.zeros(n, np.uint64) if batch.indices is None else batch.indices,
        "attempt": np.zeros(n, np.int64) if batch.attempts is None else batch.attempts,
        "confidence": nan if batch.confidences is None else batch.confidences,
        "copy_ratio": nan if batch.copy_ratios is None else batch.copy_ratios,
    }
    for place, name in enumerate(contents.transforms):
        columns[f"transform_{name}"] = nan if batch.transforms is None else batch.transforms[:, place]
    return columns


# FOLDED FROM fount.export.table:
# How the rows of a plan are cut into files, and the files shared among jobs. The cut depends on the plan and
# the number of shards alone: a second run makes the same parts as the first.


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
    ranges = [(shard, shard_range(rows, shard, shards)) for shard in range(shards)]
    bounds = [(shard, first, min(first + most, whole.stop)) for shard, whole in ranges for first in whole[::most]]
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
