"""Probe rows: inputs for measuring and verifying a model when there is no request.

A card and addresses enter; rows leave, the same for the same addresses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fount.address import Addresses, Stream
from fount.transform_columns import COLUMNS, IDENTITY
from handlers.cards.card import Card
from handlers.execution.pixels import uint8_to_floats
from handlers.execution.rows import GivenRows, ImageRows, ManipulationRows, Rows, SampleRows

if TYPE_CHECKING:
    from handlers.execution.network import Operation

__all__ = ["make_manipulations", "make_probe_rows"]

_PARAMETER_RANGES = {
    "flip_horizontal": (0.0, 1.0), "flip_vertical": (0.0, 1.0), "rotate_degrees": (-180.0, 180.0),
    "shear_degrees": (-30.0, 30.0), "zoom_factor": (0.5, 2.0), "shift_x": (-0.2, 0.2), "shift_y": (-0.2, 0.2),
    "brightness": (-0.2, 0.2), "contrast_factor": (0.5, 2.0), "noise_std": (0.0, 0.1), "erase_x": (0.0, 0.5),
    "erase_y": (0.0, 0.5), "erase_width": (0.0, 0.4), "erase_height": (0.0, 0.4),
}  # fmt: skip


def make_probe_rows(card: Card, operation: Operation, addresses: Addresses) -> Rows:
    """Make one row for each address: a sample of class i mod classes, an image or vector of noise, or a latent."""
    labels = np.arange(len(addresses), dtype=np.int64) % len(card.classes) if card.classes else None
    if operation == "SAMPLE":
        return SampleRows(addresses=addresses, labels=labels)
    if operation == "DECODE":
        z = addresses.normals(Stream.LATENT, card.latent_dim or 0) * np.float32(card.latent_spread)
        return GivenRows(values=z, labels=labels, addresses=addresses)
    shape = card.input_shape if operation == "TRANSLATE" else card.sample.shape
    if operation == "TRANSFORM":
        return make_manipulations(addresses, shape)
    images = uint8_to_floats(_noise_images(addresses, shape), card.sample.value_range)
    if operation in ("CLASSIFY", "EMBED"):
        return ImageRows(images=images)
    return GivenRows(values=images, labels=None if operation == "SCORE" else labels, addresses=addresses)


def make_manipulations(addresses: Addresses, shape: tuple[int, ...]) -> ManipulationRows:
    """Make images of noise with every transform in some of them; each eighth row is left unchanged.

    Args:
        addresses: one for each row.
        shape: (H, W, C).
    """
    ends = np.array([_PARAMETER_RANGES[name] for name in COLUMNS])  # (columns, 2)
    uniforms = addresses.uniforms(Stream.TRANSFORM, 2 * len(COLUMNS))  # (n, 2·columns)
    drawn = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * uniforms[:, : len(COLUMNS)]
    unchanged = uniforms[:, len(COLUMNS) :] < 0.5
    unchanged |= (addresses.indices % np.uint64(8) == 0)[:, None]
    table = np.where(unchanged, IDENTITY, drawn.astype(np.float32))
    return ManipulationRows(images=_noise_images(addresses, shape), table=table, addresses=addresses)


def _noise_images(addresses: Addresses, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    levels = (addresses.uniforms(Stream.LATENT, math.prod(shape)) * 256).astype(np.uint8)
    return levels.reshape(len(addresses), *shape)  # (n, H·W·C) -> (n, H, W, C)
