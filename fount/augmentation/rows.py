"""The rows that a pull returns: images with labels and provenance, decoded from the chunks of a stream.

A `RowBatch` is decoded from one `RowChunk`. It keeps rejected rows, which hold no sample, so that rows keep the order
and indices they have in the plan; `accepted()` leaves them out.
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
_REQUIRED = object()  # of a column that is never empty


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBatch:
    """Consecutive rows of a plan, or variants of the caller's own rows. The first axis of every array is the row.

    Attributes:
        start_index: index of the first row of the chunk.
        end_index: one beyond its last row, where a pull that received this batch continues.
        rows: (N,) uint64, the index of each row in its plan.
        images: (N, H, W, C) uint8, read-only; zero in rejected rows.
        labels: (N,) int64 class ids; of variants, -1 where the client gave none.
        rejected: (N,) bool, the slots for which no sample was accepted.
        errors: why, one for each rejected row.
        groups: (N,) int64 group ids, -1 for a row without one; None without a group column.
        weights: (N,) int64; None when all are 1.
        sources: (N,) uint8, keys of `fount.augmentation.plan.SOURCES`; None, like all attributes below, without
            provenance.
        source_rows: (N,) int64, the row of the data set's split; -1 for a synthesised row.
        seeds: (N,) uint64, and
        indices: (N,) uint64, the address the row was drawn at; `Client.sample` gives a synthesised row again,
            `translate` and `reconstruct` of the source row a translated and a reconstructed one.
        attempts: (N,) int64, how many samples were rejected before this one.
        transforms: (N, K) float32, parameters of the transforms, NaN where none was applied; None unless provenance is
            "full".
        transform_columns: the names of the K columns, as "rotate_degrees".
        confidences: (N,) float32, the classifier's confidence in the label of a row that a model generated, NaN for
            others; or None.
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
        """Choose rows; `start_index` and `end_index` stay those of the chunk."""
        chosen: dict[str, Any] = {
            each.name: value[rows] for each in fields(self) if isinstance(value := getattr(self, each.name), np.ndarray)
        }
        kept = set(chosen["rows"][chosen["rejected"]].tolist())
        return replace(self, **chosen, errors=tuple(error for error in self.errors if error.index in kept))

    def accepted(self) -> RowBatch:
        """Return the rows that hold a sample; the batch itself when all do."""
        return self.take(~self.rejected) if self.rejected.any() else self


class RowParts:
    """Joins the parts of a row that is larger than a chunk."""

    def __init__(self) -> None:
        self._parts = Parts()
        self._first: augmentation_pb2.RowChunk | None = None

    def join(self, chunk: augmentation_pb2.RowChunk) -> augmentation_pb2.RowChunk | None:
        """Add a chunk, and return the whole one with the columns of its first part; None while parts are missing.

        Raises:
            BadReply: it does not follow the parts before.
        """
        samples, first = self._parts.join(chunk.samples), self._first or chunk
        self._first = first if samples is None else None
        if samples is None or samples is chunk.samples:
            return None if samples is None else chunk
        provenance = first.provenance if first.HasField("provenance") else None
        return augmentation_pb2.RowChunk(
            samples=samples, groups=first.groups, weights=first.weights, provenance=provenance
        )


def read_row_batch(
    chunk: augmentation_pb2.RowChunk, shape: SampleShape, *, groups: int, columns: Sequence[str]
) -> RowBatch:
    """Decode a chunk of whole rows.

    Args:
        chunk: with large rows joined.
        shape: shape and element type of an image.
        groups: number of groups; a row without one has the id after the last.
        columns: the names of the transforms' parameters; empty unless provenance is full.

    Raises:
        BadReply: a column has another length than the chunk, or the bytes contradict the count.
        SampleFailed: rows failed otherwise than by being rejected.
    """
    samples = chunk.samples
    count, place = samples.count, brief(samples)
    images, _, errors = read_rows(samples, shape)
    if failed := [(error.index, f"{error.code}: {error.message}") for error in errors if error.code != _REJECTED]:
        raise SampleFailed(failed)
    rows = np.uint64(samples.start_index) + np.arange(count, dtype=np.uint64)
    rejected = np.zeros(count, np.bool_)
    rejected[[error.index - samples.start_index for error in errors]] = True
    assert images is not None
    ids = _column(chunk.groups, np.int64, count, f"groups of {place}", empty=None)
    batch = RowBatch(
        start_index=samples.start_index,
        end_index=samples.start_index + count,
        rows=rows,
        images=images,
        labels=_column(samples.labels, np.int64, count, f"labels of {place}", empty=-1),
        rejected=rejected,
        errors=errors,
        groups=ids if ids is None else np.where(ids < groups, ids, -1),
        weights=_column(chunk.weights, np.int64, count, f"weights of {place}", empty=None),
    )
    return _with_provenance(batch, chunk.provenance, tuple(columns)) if chunk.HasField("provenance") else batch


def _with_provenance(batch: RowBatch, provenance: augmentation_pb2.RowProvenance, columns: tuple[str, ...]) -> RowBatch:
    count, place = len(batch), f"rows {batch.start_index} to {batch.end_index - 1}"
    source_rows = _column(provenance.source_rows, np.uint64, count, f"source rows of {place}", empty=_NO_SOURCE_ROW)
    flat = provenance.transforms if columns else ()
    transforms = _column(flat, np.float32, count * len(columns), f"transforms of {place}", empty=np.nan)
    return replace(
        batch,
        sources=_column(provenance.sources, np.uint8, count, f"sources of {place}"),
        source_rows=source_rows.view(np.int64),  # 2^64 - 1 is -1
        seeds=_column(provenance.seeds, np.uint64, count, f"seeds of {place}"),
        indices=_column(provenance.indices, np.uint64, count, f"indices of {place}"),
        attempts=_column(provenance.attempts, np.int64, count, f"attempts of {place}", empty=0),
        transforms=transforms.reshape(count, len(columns)) if columns else None,  # (N * K,) -> (N, K)
        transform_columns=columns,
        confidences=_column(provenance.confidences, np.float32, count, f"confidences of {place}", empty=None),
        copy_ratios=_column(provenance.copy_ratios, np.float32, count, f"copy ratios of {place}", empty=None),
    )


def _column(values: Sequence[Any], dtype: Any, count: int, name: str, *, empty: Any = _REQUIRED) -> Any:
    """Return a repeated field as an array; one that may be empty becomes None then, or is filled with `empty`."""
    if not len(values) and empty is not _REQUIRED:
        return None if empty is None else np.full(count, empty, dtype)
    if len(values) != count:
        raise BadReply(f"The chunk has {len(values)} {name}, but {count} are due.")
    return np.fromiter(values, dtype, count)
