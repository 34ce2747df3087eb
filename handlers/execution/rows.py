"""Rows: the unit of work of a batch, split and joined independently of what is computed of them.

A row is an address with its label, an image, or an image with its transforms. Rows of many items are joined into one
batch and padded by ordinary rows whose results are dropped; the caller splits the results again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transform_columns import IDENTITY
from handlers.execution.pixels import Float32s, Uint8s

__all__ = [
    "ImageRows", "Int64s", "ManipulationRows", "Rows", "SampleRows", "concatenate_rows",
    "pad_rows",
]  # fmt: skip

Int64s = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SampleRows:
    """Samples to draw.

    Attributes:
        addresses: one for each row.
        labels: (n,) int64, or None for an unconditional model.
        states: (n, ...) float32, of draws that an earlier call preempted; None for new draws.
    """

    addresses: Addresses
    labels: Int64s | None
    states: Float32s | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    def take(self, rows: slice | NDArray[np.intp]) -> SampleRows:
        """Select rows."""
        labels = None if self.labels is None else self.labels[rows]
        states = None if self.states is None else self.states[rows]
        return SampleRows(addresses=self.addresses.take(rows), labels=labels, states=states)


@dataclass(frozen=True, kw_only=True)
class ImageRows:
    """Images to read.

    Attributes:
        images: (n, H, W, C) float32 in the card's value range.
    """

    images: Float32s

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice | NDArray[np.intp]) -> ImageRows:
        """Select rows."""
        return ImageRows(images=self.images[rows])


@dataclass(frozen=True, kw_only=True)
class ManipulationRows:
    """Images to transform.

    Attributes:
        images: (n, H, W, C) uint8, of any shape.
        table: (n, columns) float32, the transforms of each; see `fount.transform_columns`.
        addresses: one for each row, at which noise is read.
    """

    images: Uint8s
    table: Float32s
    addresses: Addresses

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice | NDArray[np.intp]) -> ManipulationRows:
        """Select rows."""
        return ManipulationRows(images=self.images[rows], table=self.table[rows], addresses=self.addresses.take(rows))


Rows = SampleRows | ImageRows | ManipulationRows


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Join rows of one kind in order, into memory of their own.

    Raises:
        TypeError: the parts are of different kinds.
    """
    if len({type(part) for part in parts}) > 1:
        raise TypeError("rows of two kinds cannot share a batch")
    if images := [part for part in parts if isinstance(part, ImageRows)]:
        return ImageRows(images=np.concatenate([part.images for part in images]))
    if manipulations := [part for part in parts if isinstance(part, ManipulationRows)]:
        return ManipulationRows(
            images=np.concatenate([part.images for part in manipulations]),
            table=np.concatenate([part.table for part in manipulations]),
            addresses=Addresses.concatenate([part.addresses for part in manipulations]),
        )
    return _concatenate_samples([part for part in parts if isinstance(part, SampleRows)])


def _concatenate_samples(samples: Sequence[SampleRows]) -> SampleRows:
    labels = [part.labels for part in samples if part.labels is not None]
    states = [part.states for part in samples if part.states is not None]
    if len(states) not in (0, len(samples)):
        raise TypeError("new draws and resumed draws cannot share a batch")
    return SampleRows(
        addresses=Addresses.concatenate([part.addresses for part in samples]),
        labels=np.concatenate(labels) if labels else None,
        states=np.concatenate(states) if states else None,
    )


def pad_rows(rows: Rows, size: int) -> Rows:
    """Pad a batch to `size` rows: with address (0, 0), label 0 and a state of zeros, or with images of zeros.

    Padding among images to transform gets the identity.
    """
    missing = size - len(rows)
    if missing <= 0:
        return rows
    if isinstance(rows, ImageRows):
        return concatenate_rows([rows, ImageRows(images=np.zeros((missing, *rows.images.shape[1:]), np.float32))])
    nothing = np.zeros(missing, np.uint64)
    addresses = Addresses(seeds=nothing, indices=nothing)
    if isinstance(rows, ManipulationRows):
        images = np.zeros((missing, *rows.images.shape[1:]), np.uint8)
        table = np.broadcast_to(IDENTITY, (missing, *rows.table.shape[1:]))
        return concatenate_rows([rows, ManipulationRows(images=images, table=table, addresses=addresses)])
    labels = None if rows.labels is None else np.zeros(missing, np.int64)
    states = None if rows.states is None else np.zeros((missing, *rows.states.shape[1:]), np.float32)
    padding = SampleRows(addresses=addresses, labels=labels, states=states)
    return concatenate_rows([rows, padding])
