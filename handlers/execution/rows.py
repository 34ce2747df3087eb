"""Rows: the unit of work of a batch, split and joined independently of what is computed of them.

A row is an address with its label, an image, an image with its transforms, or values with label and address. Rows of
many items are joined into one batch and padded by ordinary rows, whose results are dropped; the caller splits results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transform_columns import IDENTITY
from handlers.execution.pixels import Float32s, Uint8s

__all__ = [
    "GivenRows", "ImageRows", "Int64s", "ManipulationRows", "Rows", "SampleRows", "concatenate_rows", "pad_rows",
]  # fmt: skip

Int64s = NDArray[np.int64]


class _Rows:
    """Base of the dataclasses below, whose fields all have one entry for each row, or are None."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def take(self, rows: slice | NDArray[np.intp]) -> Self:
        """Select rows."""
        return type(self)(**{name: _take(value, rows) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class SampleRows(_Rows):
    """Samples to draw.

    Attributes:
        addresses: one for each row.
        labels: (n,) int64, or None for an unconditional model.
        states: (n, ...) float32, of draws that an earlier call preempted; None for new draws.
    """

    addresses: Addresses
    labels: Int64s | None
    states: Float32s | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRows(_Rows):
    """Images to read.

    Attributes:
        images: (n, H, W, C) float32 in the card's value range.
    """

    images: Float32s


@dataclass(frozen=True, kw_only=True)
class ManipulationRows(_Rows):
    """Images to transform.

    Attributes:
        images: (n, H, W, C) uint8, of any shape.
        table: (n, columns) float32, the transforms of each; see `fount.transform_columns`.
        addresses: one for each row, at which noise is read.
    """

    images: Uint8s
    table: Float32s
    addresses: Addresses


@dataclass(frozen=True, kw_only=True)
class GivenRows(_Rows):
    """Rows to encode, decode, score or translate, or that samples are conditional on.

    Attributes:
        values: (n, ...) float32: images or vectors in the card's value range, or (n, latent_dim) latents to decode.
        labels: (n,) int64; None for an unconditional model, or to score log p(x).
        addresses: one for each row, at which noise is read.
        mask: (n, ...) float32, 1 where a value is given, else 0; None: all are.
    """

    values: Float32s
    labels: Int64s | None
    addresses: Addresses
    mask: Float32s | None = None


Rows = SampleRows | ImageRows | ManipulationRows | GivenRows


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Join rows of one kind in order, into memory of their own.

    Raises:
        TypeError: the parts are of different kinds, or only some of them have labels, masks or states.
    """
    if len({type(part) for part in parts}) > 1:
        raise TypeError("rows of two kinds cannot share a batch")
    fields = [vars(part) for part in parts]
    return type(parts[0])(**{name: _concatenate([part[name] for part in fields]) for name in fields[0]})


def pad_rows(rows: Rows, size: int) -> Rows:
    """Pad a batch to `size` rows: with address (0, 0), label 0 and a state of zeros, or with images of zeros.

    Padding among images to transform gets the identity.
    """
    missing = size - len(rows)
    if missing <= 0:
        return rows
    padding = {name: _zeros(value, missing) for name, value in vars(rows).items()}
    if isinstance(rows, ManipulationRows):
        padding["table"] = np.broadcast_to(IDENTITY, (missing, *rows.table.shape[1:]))
    return concatenate_rows([rows, dataclasses.replace(rows, **padding)])


def _take(value: Any, rows: slice | NDArray[np.intp]) -> Any:
    if value is None:
        return None
    return value.take(rows) if isinstance(value, Addresses) else value[rows]


def _concatenate(values: Sequence[Any]) -> Any:
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise TypeError("rows with and without labels, masks or states cannot share a batch")
    return Addresses.concatenate(list(values)) if isinstance(values[0], Addresses) else np.concatenate(values)


def _zeros(value: Any, count: int) -> Any:
    if isinstance(value, Addresses):
        zeros = np.zeros(count, np.uint64)
        return Addresses(seeds=zeros, indices=zeros)
    return None if value is None else np.zeros((count, *value.shape[1:]), value.dtype)
