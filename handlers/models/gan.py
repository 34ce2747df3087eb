"""A conditional generative adversarial network: a generator that is served, and the discriminator that trains it.

x is an image, y its class, z ~ N(0, 1) the latent: x = G(z, y), and D(x, y) is high for real images of y. Both get y
one-hot, D as one constant map for each class in addition to the image's channels. Batch normalisation uses batch
statistics in training only: in evaluation mode it is a fixed scale and shift, so no layer mixes the rows of a batch.
Only G is in a weights file.

Sources: Goodfellow et al., "Generative adversarial nets", 2014, algorithm 1; Mirza and Osindero, "Conditional
generative adversarial nets", 2014; Radford, Metz, Chintala, "Unsupervised representation learning with deep
convolutional generative adversarial networks", 2015 (the layers); Miyato et al., "Spectral normalization for generative
adversarial networks", 2018 (the discriminator's); Miyato and Koyama, "cGANs with projection discriminator", 2018; Lim
and Ye, "Geometric GAN", 2017 (the hinge).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["ConditionalGan", "Discriminator", "GanConfig", "discriminator_loss", "generator_loss"]

_SLOPE = 0.1  # of the discriminator's rectifiers below 0


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """The shape of a generator.

    Attributes:
        height: pixels, divisible by 2^stages.
        width: pixels, divisible by 2^stages.
        channels: of the images.
        latent_dim: length of z.
        features: channels of the last feature map, at full size; the earlier ones have twice as many.
        stages: number of times height and width are doubled, 1 or more.
        classes: 1 or more.
    """

    height: int
    width: int
    channels: int
    latent_dim: int
    features: int
    stages: int
    classes: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"gan configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"gan configuration: {key} is {value!r}, must be a whole number of 1 or more")
        for key in ("height", "width"):
            if config[key] % 2 ** config["stages"]:
                raise ValueError(f"gan configuration: {key} is {config[key]}, must be divisible by 2^stages")
        return cls(**config)

    def small_shape(self, features: int) -> tuple[int, int, int]:
        """Return channels, height and width of the smallest feature map, for generator or discriminator features."""
        return 2 * features, self.height >> self.stages, self.width >> self.stages


class ConditionalGan(nn.Module):
    """The generator G(z, y)."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide = config.features, 2 * config.features
        self.small_shape = config.small_shape(narrow)
        self.input = nn.Linear(config.latent_dim + config.classes, math.prod(self.small_shape))
        layers: list[nn.Module] = []
        for stage in reversed(range(config.stages)):  # each doubles height and width; the last has narrow maps
            layers += [nn.BatchNorm2d(wide), nn.ReLU()]
            layers += [nn.ConvTranspose2d(wide, wide if stage else narrow, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(narrow), nn.ReLU(), nn.Conv2d(narrow, config.channels, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(GanConfig.read(config))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Compute G(z, y).

        Args:
            z: (B, latent_dim), N(0, 1).
            labels: (B,) int64.

        Returns:
            (B, C, H, W) in [-1, 1].
        """
        y = nn.functional.one_hot(labels, self.config.classes).to(z.dtype)  # (B, K)
        # (B, 2F·h·w) -> (B, 2F, h, w)
        h = self.input(torch.cat([z, y], dim=1)).unflatten(1, self.small_shape)
        images: Tensor = self.layers(h)
        return images

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row: z by address, then the generator.

        Args:
            noise: B addresses.
            labels: (B,) int64.
            draw: truncation bounds the components of z.
            deadline: checked once, before the generator runs.

        Returns:
            (B, C, H, W) in [-1, 1].

        Raises:
            ValueError: labels is None.
            DeadlinePassed: the deadline passed.
        """
        if labels is None:
            raise ValueError(f"a model of {self.config.classes} classes takes one label for each row")
        z = noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=draw.truncation)
        deadline.check()
        images: Tensor = self(z, labels)
        return images


class Discriminator(nn.Module):
    """D(x, y): strided convolutions of spectral norm 1 over the image and its class maps. Never served.

    With a projection, the score has two terms: a linear one for realism, and a class vector's for matching the class.
    """

    def __init__(self, config: GanConfig, features: int, projection: int = 0) -> None:
        """Build the network with untrained weights.

        Args:
            config: of the generator it is trained against.
            features: channels of the first convolution; the other layers have twice as many.
            projection: length of the features h in D(x, y) = v·h + w_y·h; 0 has only v·h, a linear layer.
        """
        super().__init__()
        self.config = config
        wide = 2 * features
        layers: list[nn.Module] = []
        for stage in range(config.stages):  # each halves height and width
            inputs = (features if stage == 1 else wide) if stage else config.channels + config.classes
            outputs = wide if stage else features
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE)]
        last = wide if config.stages > 1 else features
        layers += [spectral_norm(nn.Conv2d(last, wide, 3, padding=1)), nn.LeakyReLU(_SLOPE), nn.Flatten()]
        flat = math.prod(config.small_shape(features))
        self.classes: nn.Module | None = None
        if projection:
            layers += [spectral_norm(nn.Linear(flat, projection)), nn.LeakyReLU(_SLOPE)]
            self.classes = spectral_norm(nn.Embedding(config.classes, projection))
        self.layers = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(projection or flat, 1))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute D(x, y).

        Args:
            images: (B, C, H, W) in [-1, 1].
            labels: (B,) int64.

        Returns:
            (B,), unbounded: above 0 means real.

        Source: Miyato and Koyama 2018, equation 7 (the projection).
        """
        y = nn.functional.one_hot(labels, self.config.classes).to(images.dtype)
        # (B, K) -> (B, K, H, W): constant over all pixels
        maps = y[:, :, None, None].expand(-1, -1, self.config.height, self.config.width)
        h = self.layers(torch.cat([images, maps], dim=1))  # (B, 2F·h·w) or (B, projection)
        scores: Tensor = self.head(h)[:, 0]  # (B, 1) -> (B,)
        return scores if self.classes is None else scores + (self.classes(labels) * h).sum(dim=1)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's hinge loss, E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y), y)).

    Args:
        real: (B,) scores of real images.
        fake: (B,) scores of generated ones.

    Returns:
        () loss, 0 when every real score is above 1 and every fake one below -1.

    Source: Lim and Ye 2017, equation 8.
    """
    return nn.functional.relu(1 - real).mean() + nn.functional.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Compute the generator's loss, -E D(G(z, y), y), (), from the (B,) scores of generated images.

    Source: Lim and Ye 2017, equation 9.
    """
    return -fake.mean()
