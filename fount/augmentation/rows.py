"""What a pull gets: consecutive rows with their labels, and where each of them came from.

A `RowBatch` is made of one `RowChunk` of the stream. It keeps the rows that hold no sample, so that its rows stand
where the plan has them; `accepted()` leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from fount.errors import BadReply, SampleFailed
from fount.sampling.decode import Parts, brief, read_rows
from fount.sampling.types import RowError, SampleShape
from fount.v1 import augmentation_pb2

__all__ = ["RowBatch", "RowParts", "read_row_batch"]

_REJECTED = grpc.StatusCode.ABORTED.name
_NO_SOURCE_ROW = 2**64 - 1
_UNFILTERED = ("start_index", "end_index", "transform_columns")


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBatch:
    """Consecutive rows of a plan, or variants of a client's own rows. All arrays are read along their first axis.

    Attributes:
        start_index: index of the first row of the batch, as it came.
        end_index: one beyond the last, as it came: where a pull that took this batch goes on.
        rows: (N,) uint64, the index of each row in its plan.
        images: (N, H, W, C) uint8, read-only; zero in rejected rows.
        labels: (N,) int64 class ids; of variants, -1 where the client gave none.
        rejected: (N,) bool, the slots for which no sample was accepted.
        errors: why, one for each rejected row.
        groups: (N,) int64 group ids, -1 for a row without one; None without a group column.
        weights: (N,) int64; None when all are 1.
        sources: (N,) uint8, keys of `fount.augmentation.plan.SOURCES`; None, as all that follows, when no provenance
        was asked for.
        source_rows: (N,) int64, the row of the data set's split; -1 for a synthesised row.
        seeds: (N,) uint64, and
        indices: (N,) uint64, the address the row was drawn at; of a synthesised row, `Client.sample` gives it again.
        attempts: (N,) int64, how many samples were refused before this one.
        transforms: (N, K) float32, what was done, NaN where nothing was; None unless provenance is "full".
        transform_columns: what the K columns are, as "rotate_degrees".
        confidences: (N,) float32, what the classifier gave a synthesised row's label, NaN for others; or None.
        copy_ratios: (N,) float32, the copy filter's ratio of a synthesised row, NaN for others; or None.
    """

    start_index: int
    end_index: int
    rows: NDArray[np.uint64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rejected: NDArray[np.bool_]
    errors: tuple[RowError, ...] = ()
    groups: NDArray[np.int64] | None = None
    weights: NDArray[np.int64] | None = None
    sources: NDArray[np.uint8] | None = None
    source_rows: NDArray[np.int64] | None = None
    seeds: NDArray[np.uint64] | None = None
    indices: NDArray[np.uint64] | None = None
    attempts: NDArray[np.int64] | None = None
    transforms: NDArray[np.float32] | None = None
    transform_columns: tuple[str, ...] = ()
    confidences: NDArray[np.float32] | None = None
    copy_ratios: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> RowBatch:
        """Choose rows; `start_index` and `end_index` go on saying what the batch covered."""
        chosen: dict[str, Any] = {
            each.name: value[rows] for each in fields(self) if isinstance(value := getattr(self, each.name), np.ndarray)
        }
        kept = set(chosen["rows"][chosen["rejected"]].tolist())
        return replace(self, **chosen, errors=tuple(error for error in self.errors if error.index in kept))

    def accepted(self) -> RowBatch:
        """The rows that hold a sample; the batch itself when all do."""
        return self.take(~self.rejected) if self.rejected.any() else self


class RowParts:
    """The parts of one row larger than a chunk, as far as they came."""

    def __init__(self) -> None:
        self._parts = Parts()
        self._first: augmentation_pb2.RowChunk | None = None

    def join(self, chunk: augmentation_pb2.RowChunk) -> augmentation_pb2.RowChunk | None:
        """Take a chunk in, and give it whole, with what its first part told; None while parts are missing.

        Raises:
            BadReply: it does not follow what came before.
        """
        samples, first = self._parts.join(chunk.samples), self._first or chunk
        self._first = first if samples is None else None
        if samples is None or samples is chunk.samples:
            return None if samples is None else chunk
        return augmentation_pb2.RowChunk(
            samples=samples, groups=first.groups, weights=first.weights, provenance=_told(first)
        )


def _told(chunk: augmentation_pb2.RowChunk) -> augmentation_pb2.RowProvenance | None:
    return chunk.provenance if chunk.HasField("provenance") else None


def read_row_batch(
    chunk: augmentation_pb2.RowChunk, shape: SampleShape, *, groups: int, columns: Sequence[str]
) -> RowBatch:
    """Read a chunk of whole rows.

    Args:
        chunk: as it came, large rows joined.
        shape: how an image is to be read.
        groups: how many groups there are; a row without one names the id after the last.
        columns: the names of the transforms' parameters; empty unless provenance is full.

    Raises:
        BadReply: a column has another length than the chunk, or the bytes disagree with the count.
        SampleFailed: rows failed otherwise than by being rejected.
    """
    samples = chunk.samples
    count, place = samples.count, brief(samples)
    read = read_rows(samples, shape)
    if failed := [(error.index, f"{error.code}: {error.message}") for error in read.errors if error.code != _REJECTED]:
        raise SampleFailed(failed)
    rows = np.uint64(samples.start_index) + np.arange(count, dtype=np.uint64)
    rejected = np.zeros(count, np.bool_)
    rejected[[error.index - samples.start_index for error in read.errors]] = True
    assert read.samples is not None
    batch = RowBatch(
        start_index=samples.start_index,
        end_index=samples.start_index + count,
        rows=rows,
        images=read.samples,
        labels=_required(samples.labels, np.int64, count, f"{place} labels", fill=-1),
        rejected=rejected,
        errors=read.errors,
        groups=_group_ids(_column(chunk.groups, np.int64, count, f"{place} groups"), groups),
        weights=_column(chunk.weights, np.int64, count, f"{place} weights"),
    )
    return _with_provenance(batch, chunk.provenance, tuple(columns)) if chunk.HasField("provenance") else batch


def _with_provenance(batch: RowBatch, told: augmentation_pb2.RowProvenance, columns: tuple[str, ...]) -> RowBatch:
    count, place = len(batch), f"rows {batch.start_index} to {batch.end_index - 1}"
    source_rows = _required(told.source_rows, np.uint64, count, f"{place} source rows", fill=_NO_SOURCE_ROW)
    transforms = None
    if columns:
        shape = (count, len(columns))
        flat = _required(told.transforms, np.float32, count * len(columns), f"{place} transforms", fill=np.nan)
        transforms = flat.reshape(shape)  # (N * K,) -> (N, K)
    return replace(
        batch,
        sources=_required(told.sources, np.uint8, count, f"{place} sources"),
        source_rows=source_rows.view(np.int64),  # 2^64 - 1 is -1
        seeds=_required(told.seeds, np.uint64, count, f"{place} seeds"),
        indices=_required(told.indices, np.uint64, count, f"{place} indices"),
        attempts=_required(told.attempts, np.int64, count, f"{place} attempts", fill=0),
        transforms=transforms,
        transform_columns=columns,
        confidences=_column(told.confidences, np.float32, count, f"{place} confidences"),
        copy_ratios=_column(told.copy_ratios, np.float32, count, f"{place} copy ratios"),
    )


def _group_ids(ids: NDArray[np.int64] | None, groups: int) -> NDArray[np.int64] | None:
    return None if ids is None else np.where(ids < groups, ids, -1)


def _column(values: Sequence[Any], dtype: Any, count: int, name: str) -> NDArray[Any] | None:
    """A repeated field as an array; None when it is empty."""
    return _required(values, dtype, count, name) if len(values) else None


def _required(values: Sequence[Any], dtype: Any, count: int, name: str, *, fill: Any = None) -> NDArray[Any]:
    """A repeated field as an array, filled where it may be empty and is."""
    if not len(values) and fill is not None:
        return np.full(count, fill, dtype)
    if len(values) != count:
        raise BadReply(f"Of {name} came {len(values)}; {count} are due")
    return np.fromiter(values, dtype, count)
