"""The generator of this model: replace the class by your own, and keep everything it needs in this file.

A worker builds Generator(**config) with `family.config` of model.yaml, loads weights.safetensors strictly, calls eval()
and then `sample`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module):
    """A placeholder that draws smooth colours, so that everything works before you replace it."""

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
        """Generate samples; a worker calls this method, or the module itself if it is missing.

        Use z alone and never torch.randn, so that a sample is the same in every request. Optional arguments are
        temperature, top_k, top_p, guidance_scale and steps, if model.yaml lists them under `parameters`; noise, where
        noise(step) is the noise of a step in the shape of z; and check_deadline, a function to call between steps.
        """
        return self.forward(z)
