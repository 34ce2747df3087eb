"""Data sets of points on the line and in the plane, drawn from known laws by address.

A name enters; training and test points of a mixture of normals leave, the same on every machine. They need no files,
and the truth about them is known: the exact density, its distribution function, and the component of each point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fount.address import Addresses
from handlers.family import Deadline, Draw, Noise
from handlers.models.density import MixtureDensity

__all__ = ["LAWS", "POINTS_LICENCE", "draw_points"]

POINTS_LICENCE = "none: the points are drawn from a known law by address"

_RING_RADIUS, _RING_DEVIATION, _RING_MODES = 2.0, 0.05, 8
_SEED = 20263
_GRID = 2**16  # points are multiples of 1/65536, so that processors which round differently draw the same


def _ring() -> dict[str, Any]:
    """Describe eight equally likely normals at equal distances on a circle."""
    turns = [2 * math.pi * k / _RING_MODES for k in range(_RING_MODES)]
    return {
        "low": -4.0,
        "high": 4.0,
        "weights": [1 / _RING_MODES] * _RING_MODES,
        "means": [[round(_RING_RADIUS * trig(turn), 6) for trig in (math.cos, math.sin)] for turn in turns],
        "deviations": [[_RING_DEVIATION, _RING_DEVIATION]] * _RING_MODES,
        "correlations": [0.0] * _RING_MODES,
    }


LAWS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "line": {
            "low": -8.0,
            "high": 8.0,
            "weights": [0.3, 0.5, 0.2],
            "means": [[-2.5], [0.5], [3.0]],
            "deviations": [[0.5], [1.0], [0.25]],
        },
        "plane": {
            "low": -8.0,
            "high": 8.0,
            "weights": [0.4, 0.35, 0.25],
            "means": [[-1.5, -1.0], [1.5, -0.5], [0.0, 2.0]],
            "deviations": [[0.8, 0.5], [0.4, 0.9], [1.2, 0.3]],
            "correlations": [0.6, -0.5, 0.3],
        },
        "ring": _ring(),
    }
)
"""Configurations of `MixtureDensity` by name of the data set."""


def draw_points(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Draw the first points of a law of `LAWS`.

    Returns:
        (count, length) float32 points, and (count,) int64, the likeliest component of each.
    """
    law = MixtureDensity.from_config(LAWS[name])
    noise = Noise(addresses=Addresses.of_range(_SEED, 0, count), device=torch.device("cpu"))
    points = ((law.sample(noise, None, Draw(), Deadline()) * _GRID).round() / _GRID).float()
    return points, law.responsibilities(points).argmax(dim=1)
