"""Rows as they are made: images, labels, and where each came from, a column a fact. No protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_ROW", "Level", "MadeRows", "Origins"]

NO_ROW = 2**64 - 1
"""The source row of a synthesised row."""


class Level(IntEnum):
    """How much every row tells of where it came from, numbered as fount.v1.ProvenanceLevel."""

    NONE = 1
    IDS = 2
    FULL = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Origins:
    """Where rows came from.

    Attributes:
        sources: (n,) uint8, as fount.v1.Source.
        source_rows: (n,) uint64, rows of the split, or NO_ROW.
        seeds, indices: (n,) uint64, the address of what was drawn for each.
        attempts: (n,) uint32, samples refused before; None: nothing was synthesised.
        transforms: (n, columns) float32, NaN where a transform was not applied; None: none was, or nobody asked.
        confidences: (n,) float32, NaN where none; None: no classifier was asked, or nobody asked for them.
        copy_ratios: (n,) float32, likewise.
    """

    sources: NDArray[np.uint8]
    source_rows: NDArray[np.uint64]
    seeds: NDArray[np.uint64]
    indices: NDArray[np.uint64]
    attempts: NDArray[np.uint32] | None = None
    transforms: NDArray[np.float32] | None = None
    confidences: NDArray[np.float32] | None = None
    copy_ratios: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeRows:
    """Consecutive rows.

    Attributes:
        first_index: of the first.
        images: (n, H, W, C) uint8, C-contiguous; zero for rejected ones.
        labels: (n,) uint32; None: they have none.
        groups: (n,) uint32; None: no group column.
        weights: (n,) uint32; None: all are 1.
        rejected: rows, from 0, for which no sample was accepted; to how many were tried.
        origins: None where nobody asked.
        counts: rows by source as fount.v1.Source, rejected ones left out, for metrics.
        refused: samples refused on the way, for metrics.
    """

    first_index: int
    images: NDArray[np.uint8]
    labels: NDArray[np.uint32] | None
    groups: NDArray[np.uint32] | None = None
    weights: NDArray[np.uint32] | None = None
    rejected: dict[int, int]
    origins: Origins | None
    counts: dict[int, int]
    refused: int = 0
