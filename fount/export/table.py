"""The rows of one part as columns, whatever the format: which columns there are, and how batches become them.

The columns depend on the plan and on how much provenance was asked for, never on the rows: every part of an export
has the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.plan import SOURCES
from fount.augmentation.rows import RowBatch

__all__ = ["PROVENANCE", "Contents", "Table", "table_of", "values_of"]

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
