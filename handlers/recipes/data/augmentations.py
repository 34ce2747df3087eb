"""Random augmentations of training pictures, for classifiers and discriminators.

Pictures and a generator on the CPU enter; changed pictures leave on the same device. Gradients pass through.

Sources: Simard, Steinkraus, Platt, "Best practices for convolutional neural networks", 2003 (affine distortions of
digits); Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020 (translation, brightness).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Augmentation", "RandomAffine", "ShiftAndNoise", "translate"]


class Augmentation(Protocol):
    """Parameters of a random change of pictures; frozen, since checkpoints identify a run by their repr."""

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change every picture at random.

        Args:
            images: (B, C, H, W) in [0, 1].
            generator: of everything random, on the CPU.

        Returns:
            (B, C, H, W) in [0, 1].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ShiftAndNoise:
    """Shift some pictures by up to a pixel, and add noise to all; for very small pictures.

    Attributes:
        shifted_share: of the pictures.
        noise: standard deviation.
    """

    shifted_share: float = 0.5
    noise: float = 0.08

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Shift and add noise, as in `Augmentation`."""
        kept = torch.rand(len(images), generator=generator) >= self.shifted_share
        shifts = torch.randint(-1, 2, (2, len(images), 1), generator=generator).masked_fill(kept[:, None], 0)
        shifted = _shift(images, shifts, 1)
        noise = torch.randn(shifted.shape, generator=generator).to(images.device)
        return (shifted + self.noise * noise).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class RandomAffine:
    """Rotate, scale, shear and shift every picture.

    Attributes:
        rotation: largest angle, in radians.
        scale: largest change of size, as a share of the size.
        shear: largest shear, columns per row.
        shift_px: largest shift in each direction, in pixels.
    """

    rotation: float = 0.2
    scale: float = 0.1
    shear: float = 0.15
    shift_px: float = 2.0

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Apply all four with one bilinear interpolation, as in `Augmentation`."""
        count, _, height, width = images.shape
        angle, size, shear, right, down = 2 * torch.rand(5, count, generator=generator) - 1  # each (B,), in [-1, 1]
        zoom = 1 + self.scale * size
        cos, sin = (self.rotation * angle).cos() / zoom, (self.rotation * angle).sin() / zoom
        right, down = self.shift_px * 2 / width * right, self.shift_px * 2 / height * down  # the grid is [-1, 1] wide
        rows = [torch.stack([cos, self.shear * shear - sin, right], 1), torch.stack([sin, cos, down], 1)]
        grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)  # (B, H, W, 2)
        return nn.functional.grid_sample(images, grid.to(images.device), align_corners=False)


def translate(images: Tensor, most: int, generator: torch.Generator, *, background: float) -> Tensor:
    """Shift every picture by up to `most` whole pixels in each direction.

    Args:
        images: (B, C, H, W).
        most: 0 changes nothing and draws no random numbers.
        generator: of the shifts, on the CPU.
        background: value of pixels from outside the picture.

    Source: Zhao et al. 2020, section 3.3.
    """
    if most == 0:
        return images
    shifts = torch.randint(-most, most + 1, (2, len(images), 1), generator=generator)
    return _shift(images, shifts, most, background)


def _shift(images: Tensor, shifts: Tensor, most: int, background: float = 0.0) -> Tensor:
    """Shift every picture by (down, right) pixels; shifts: (2, B, 1) whole numbers in [-most, most]."""
    count, _, height, width = images.shape
    down, right = shifts[0] + torch.arange(height) + most, shifts[1] + torch.arange(width) + most  # (B, H), (B, W)
    padded = nn.functional.pad(images, (most, most, most, most), value=background).movedim(1, -1)  # (B, H+2m, W+2m, C)
    rows, down, right = (part.to(images.device) for part in (torch.arange(count), down, right))
    return padded[rows[:, None, None], down[:, :, None], right[:, None, :]].movedim(-1, 1)  # -> (B, C, H, W)
