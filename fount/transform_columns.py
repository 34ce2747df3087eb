"""The columns of a table of transforms: the parameters a gateway draws and a worker applies, one row an image.

Rotation is anticlockwise, shear leans the top to the right, a zoom above 1 is larger, shifts go right and down. Shifts,
and the left, top, width and height of the erased rectangle, are shares of the picture's width and height; brightness
and noise are shares of the full range of a pixel. The order is part of the contract between gateway and worker: columns
may be added at the end, and none may move.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "IDENTITY", "NOISE_FIRST_BLOCK"]

_IDENTITY = {
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    "rotate_degrees": 0.0,
    "shear_degrees": 0.0,
    "zoom_factor": 1.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "brightness": 0.0,
    "contrast_factor": 1.0,
    "noise_std": 0.0,
    "erase_x": 0.0,
    "erase_y": 0.0,
    "erase_width": 0.0,
    "erase_height": 0.0,
}

COLUMNS: tuple[str, ...] = tuple(_IDENTITY)
"""Their names, in order."""

IDENTITY: NDArray[np.float32] = np.array(list(_IDENTITY.values()), np.float32)
"""(columns,) float32: the row that leaves an image unchanged."""

NOISE_FIRST_BLOCK = 2**24
"""First block of pixel noise on the stream `transform`; the blocks below are for the parameters."""
