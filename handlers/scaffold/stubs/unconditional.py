"""The generator of this model: replace the class by your own, and keep what it needs in this one file.

A worker builds it as Generator(**config), config being `family.config` of model.yaml, loads weights.safetensors into
it, strictly, puts it into evaluation mode, and calls `sample`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module):
    """A stand-in that draws smooth colours, so that everything around it works before your own is here."""

    def __init__(self, latent_dim: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.size = [height, width]
        self.read = nn.Linear(latent_dim, 32 * 4 * 4)
        self.draw = nn.Conv2d(32, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Turn z into pictures.

        Args:
            z: (B, latent_dim), N(0, 1).

        Returns:
            (B, channels, height, width) in [-1, 1], the card's value_range.
        """
        small = torch.relu(self.read(z)).reshape(-1, 32, 4, 4)  # (B, 512) -> (B, 32, 4, 4)
        large = nn.functional.interpolate(small, self.size, mode="bilinear")
        return torch.tanh(self.draw(large))

    def sample(self, z: Tensor) -> Tensor:
        """What a worker calls; without a `sample`, it calls the module itself.

        Draw from z alone, never from torch.randn, so that a sample is the same whenever it is asked for. What else may
        be taken by name: temperature, top_k, top_p, guidance_scale and steps, once model.yaml lists them under
        `parameters`; noise, where noise(step) is shaped like z and is the noise of a step; and check_deadline, to be
        called between steps.
        """
        return self.forward(z)
