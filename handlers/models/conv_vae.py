"""Convolutional variational autoencoders with p(z) = N(0, I), for images without classes.

The encoder gives q(z|x) = N(mu, diag(exp(logvar))), the decoder an image in [0, 1]. How images are compared is a matter
of training: with a discriminator's features in place of pixels (see `handlers.recipes.tasks.vae_gan`), samples are
sharper, and the model has no likelihood of pixels. No layer mixes the rows of a batch.

Source: Kingma and Welling, "Auto-encoding variational Bayes", 2014; Larsen et al., "Autoencoding beyond pixels using a
learned similarity metric", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["ConvVae", "ConvVaeConfig"]


@dataclass(frozen=True, kw_only=True)
class ConvVaeConfig:
    """The shape of a convolutional autoencoder.

    Attributes:
        height: pixels, divisible by 4.
        width: pixels, divisible by 4.
        channels: of the images.
        latent_dim: length of z.
        features: channels of the maps at full and half size; those at a quarter have twice as many.
        hidden: width of the dense layer on both sides of z.
    """

    height: int
    width: int
    channels: int
    latent_dim: int
    features: int
    hidden: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = {field.name for field in fields(cls)}
        if wrong := sorted(set(config) ^ known):
            raise ValueError(f"conv-vae configuration has unknown or missing keys {wrong}; it takes {sorted(known)}")
        for key in sorted(known):
            if type(config[key]) is not int or config[key] < 1:
                raise ValueError(f"conv-vae configuration: {key} is {config[key]!r}, must be a whole number above 0")
        for key in ("height", "width"):
            if config[key] % 4:
                raise ValueError(f"conv-vae configuration: {key} is {config[key]}, must be divisible by 4")
        return cls(**config)


class ConvVae(nn.Module):
    """A convolutional variational autoencoder."""

    def __init__(self, config: ConvVaeConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide = config.features, 2 * config.features
        maps = (wide, config.height // 4, config.width // 4)
        flat = maps[0] * maps[1] * maps[2]
        self.encoder = nn.Sequential(
            nn.Conv2d(config.channels, narrow, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(flat, config.hidden), nn.SiLU(),
            nn.Linear(config.hidden, 2 * config.latent_dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, config.hidden), nn.SiLU(), nn.Linear(config.hidden, flat), nn.SiLU(),
            nn.Unflatten(1, maps),
            nn.Upsample(scale_factor=2), nn.Conv2d(wide, wide, 3, padding=1), nn.SiLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(wide, narrow, 3, padding=1), nn.SiLU(),
            nn.Conv2d(narrow, config.channels, 3, padding=1),
        )  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(ConvVaeConfig.read(config))

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute mu and logvar of q(z|x), each (B, latent_dim), of (B, C, H, W) in [0, 1]."""
        mu, logvar = self.encoder(images).chunk(2, dim=1)
        return mu, logvar

    def logits(self, z: Tensor) -> Tensor:
        """Compute the log odds of every pixel, (B, C, H, W), of z, (B, latent_dim)."""
        logits: Tensor = self.decoder(z)
        return logits

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the image of each z, (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.logits(z))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`): z of N(0, I) by address, decoded."""
        z = noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=draw.truncation)
        deadline.check()
        return self.decode(z, None)
