"""Pixel noise: what denoising models are trained with, measured with, and drawn with."""

from __future__ import annotations

import torch
from torch import Tensor

from fount.address import Addresses, Stream

__all__ = ["add_noise", "noise_at"]


def add_noise(images: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
    """Add noise to pictures, and clip, as a camera does.

    Args:
        images: (B, C, H, W) in [0, 1].
        levels: (B,), the standard deviation of each picture's noise.
        noise: (B, C, H, W), N(0, 1).

    Returns:
        (B, C, H, W) in [0, 1].
    """
    return (images + levels[:, None, None, None] * noise).clamp(0, 1)


def noise_at(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Draw noise of N(0, 1) for pictures 0 to B - 1 at a seed, of shape (B, C, H, W)."""
    count, *size = shape
    normals = Addresses.of_range(seed, 0, count).normals(Stream.LATENT, torch.Size(size).numel())
    return torch.from_numpy(normals).reshape(shape)
