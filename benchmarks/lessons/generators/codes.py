"""The decoder of a plain autoencoder with normally distributed codes: codes = mean + sd · z.

A worker builds it as Generator(**config) and loads weights.safetensors. The decoder is that of `handlers.models.vae`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module):
    """The decoder of a plain autoencoder, with the mean and sd of its codes."""

    def __init__(self, latent_dim: int, classes: int, height: int, width: int, channels: int,
                 features: int, stages: int, hidden: int) -> None:  # fmt: skip
        super().__init__()
        self.classes = classes
        self.small_shape = (2 * features, height >> stages, width >> stages)
        flat = 2 * features * (height >> stages) * (width >> stages)
        inputs = latent_dim + classes
        self.decoder_input: nn.Module = nn.Linear(inputs, flat)
        if hidden:
            self.decoder_input = nn.Sequential(
                nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, flat)
            )
        layers: list[nn.Module] = []
        for stage in reversed(range(stages)):  # each doubles height and width
            wide = 2 * features
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(wide, wide if stage else features, 3, padding=1)]
            layers += [nn.SiLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(features, channels, 3, padding=1))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("sd", torch.ones(latent_dim))

    def sample(self, z: Tensor, label: Tensor) -> Tensor:
        """Turn z, (B, latent_dim), and labels, (B,), into pictures, (B, channels, height, width) in [0, 1]."""
        y = nn.functional.one_hot(label, self.classes).to(z.dtype)
        h = self.decoder_input(torch.cat([self.mean + self.sd * z, y], dim=1))
        # (B, 2F·h·w) -> (B, 2F, h, w)
        return torch.sigmoid(self.decoder(nn.functional.silu(h.unflatten(1, self.small_shape))))
