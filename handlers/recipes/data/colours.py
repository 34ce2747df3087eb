"""Digits in colour: pictures of MNIST, each with a hue drawn by address from a known law of its class.

The hue of a digit of class k lies near k/10 of the circle of hues in 7 of 10 pictures, and opposite in the others. A
pixel has the full saturation of that hue, and its largest channel is the grey of the picture it was made from. So a
coloured picture is reduced to that one by the largest channel, and that does not tell which of the two hues it was.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.address import Addresses, Stream

__all__ = ["FIRST_SHARE", "HUE_SPREAD", "colour_images", "draw_hues", "hue_cdf", "hues_of", "saturations_of"]

FIRST_SHARE = 0.7
"""Of the pictures of a class, those whose hue lies near the first of its two."""

HUE_SPREAD = 0.02
"""Standard deviation of the hues around each of the two, in turns."""

_SEED = 20263
_OFFSETS = (0, 2 / 3, 1 / 3)  # of the hue, so that red, green and blue are at 0


def draw_hues(labels: Tensor, start_index: int) -> Tensor:
    """Draw the hue of each of consecutive pictures.

    Args:
        labels: (N,) int64, 0 to 9.
        start_index: of the first one's address.

    Returns:
        (N,) float64 in [0, 1).
    """
    addresses = Addresses.of_range(_SEED, start_index, len(labels))
    is_second = torch.from_numpy(addresses.uniforms(Stream.LABEL, 1)[:, 0] >= FIRST_SHARE)
    spread = torch.from_numpy(addresses.normals(Stream.LATENT, 1)[:, 0].astype(np.float64))
    return (labels / 10 + 0.5 * is_second + HUE_SPREAD * spread).remainder(1)


def colour_images(greys: Tensor, hues: Tensor) -> Tensor:
    """Colour (N, 1, H, W) in [0, 1] by the hues (N,): (N, 3, H, W) float32, red, green and blue.

    Source: the hue of HSV, at full saturation.
    """
    places = hues[:, None] + torch.tensor(_OFFSETS, dtype=hues.dtype)  # (N, 3)
    edges = (3 * (2 * places.remainder(1) - 1).abs() - 1).clamp(0, 1)
    return greys * edges.float()[:, :, None, None]


def hues_of(images: Tensor) -> Tensor:
    """Measure the hue of each picture's mean colour, (N, 3, H, W) in [0, 1] to (N,) in [0, 1)."""
    red, green, blue = images.double().mean(dim=(2, 3)).unbind(1)
    largest, least = torch.stack([red, green, blue]).amax(0), torch.stack([red, green, blue]).amin(0)
    span = (largest - least).clamp(min=1e-12)
    hue = torch.where(
        largest == red,
        (green - blue) / span,
        torch.where(largest == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    return (hue / 6).remainder(1)


def saturations_of(images: Tensor) -> Tensor:
    """Measure the saturation of each picture's mean colour, (N, 3, H, W) in [0, 1] to (N,) in [0, 1]."""
    mean = images.double().mean(dim=(2, 3))
    return 1 - mean.amin(dim=1) / mean.amax(dim=1).clamp(min=1e-12)


def hue_cdf(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the law of hues minus a class's first hue, in turns from -¼ to ¾, where its two peaks are whole.

    Returns:
        The probability of at most each distance.
    """
    normal = np.vectorize(math.erf)
    peaks = [0.5 * (1 + normal((distances - peak) / (HUE_SPREAD * math.sqrt(2)))) for peak in (0.0, 0.5)]
    values: NDArray[np.float64] = FIRST_SHARE * peaks[0] + (1 - FIRST_SHARE) * peaks[1]
    return values
