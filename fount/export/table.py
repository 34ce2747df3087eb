"""The rows of one part as columns, independent of the file format.

Row batches enter, a `Table` leaves. Its columns depend on the plan and the requested provenance, never on the rows, so
every part of an export has the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.plan import SOURCES
from fount.augmentation.rows import RowBatch

__all__ = ["Table", "TableSchema", "build_table"]

_Array = NDArray[Any]

_ABSENT = -1  # in integer columns of rows that lack the value; floats have NaN
_NEVER_ABSENT = ("index", "label", "weight", "seed", "sample_index")


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """What every part of an export has in common.

    Attributes:
        classes: class names by id.
        groups: group names by id; empty without a group column.
        shape: (H, W, C) of every image.
        transforms: names of the drawn parameters; empty unless provenance is "full".
    """

    classes: Sequence[str]
    groups: Sequence[str]
    shape: tuple[int, ...]
    provenance: str
    transforms: Sequence[str] = ()

    def columns(self) -> dict[str, np.dtype[Any]]:
        """List every column other than the image, in order, with its type.

        label and group are ids, source is a code of `fount.v1.Source`; an absent value is -1, or NaN.
        """
        names = {"index": "i8", "label": "i8", **({"group": "i8"} if self.groups else {}), "weight": "i8"}
        if self.provenance != "none":
            names |= {"source": "u1", "source_row": "i8", "seed": "u8", "sample_index": "u8", "attempt": "i8"}
        if self.provenance == "full":
            names |= {"confidence": "f4", "copy_ratio": "f4", **{f"transform_{name}": "f4" for name in self.transforms}}
        return {name: np.dtype(kind) for name, kind in names.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The accepted rows of a part: images, (N, H, W, C) uint8, and columns, (N,) each; `rejected` rows were omitted."""

    schema: TableSchema
    images: NDArray[np.uint8]
    columns: Mapping[str, _Array]
    rejected: int

    def __len__(self) -> int:
        return len(self.images)

    def values(self, name: str) -> list[Any]:
        """Convert a column for text formats: sources by name, None for absent values."""
        column = self.columns[name]
        if name == "source":
            return [SOURCES.get(code, str(code)) for code in column.tolist()]
        absent = np.isnan(column) if column.dtype.kind == "f" else column == _ABSENT
        values: list[Any] = column.tolist()
        if name in _NEVER_ABSENT or not absent.any():
            return values
        return [None if is_absent else value for value, is_absent in zip(values, absent.tolist(), strict=True)]

    def group_names(self) -> list[str | None]:
        """Name the group of each row; None for a row without one, and without groups for every row."""
        groups = self.columns.get("group", np.full(len(self), _ABSENT))
        return [None if group == _ABSENT else self.schema.groups[group] for group in groups.tolist()]


def build_table(batches: Sequence[RowBatch], schema: TableSchema) -> Table:
    """Concatenate consecutive batches, and omit rejected rows."""
    accepted = [batch.accepted() for batch in batches]
    pieces = [_columns(batch, schema) for batch in accepted]
    columns = {
        name: np.concatenate([np.empty(0, kind), *(each[name].astype(kind, copy=False) for each in pieces)])
        for name, kind in schema.columns().items()
    }
    return Table(
        schema=schema,
        images=np.concatenate([np.empty((0, *schema.shape), np.uint8), *(batch.images for batch in accepted)]),
        columns=columns,
        rejected=sum(map(len, batches)) - sum(map(len, accepted)),
    )


def _columns(batch: RowBatch, schema: TableSchema) -> dict[str, _Array]:
    n = len(batch)
    absent, nan = np.full(n, _ABSENT), np.full(n, np.nan, np.float32)
    zeros, unsigned_zeros = np.zeros(n, np.int64), np.zeros(n, np.uint64)
    columns: dict[str, _Array] = {
        "index": batch.rows,
        "label": batch.labels,
        "group": absent if batch.groups is None else np.where(batch.groups < len(schema.groups), batch.groups, _ABSENT),
        "weight": np.ones(n, np.int64) if batch.weights is None else batch.weights,
        "source": zeros if batch.sources is None else batch.sources,
        "source_row": absent if batch.source_rows is None else batch.source_rows,
        "seed": unsigned_zeros if batch.seeds is None else batch.seeds,
        "sample_index": unsigned_zeros if batch.indices is None else batch.indices,
        "attempt": zeros if batch.attempts is None else batch.attempts,
        "confidence": nan if batch.confidences is None else batch.confidences,
        "copy_ratio": nan if batch.copy_ratios is None else batch.copy_ratios,
    }
    for k, name in enumerate(schema.transforms):
        columns[f"transform_{name}"] = nan if batch.transforms is None else batch.transforms[:, k]
    return columns
