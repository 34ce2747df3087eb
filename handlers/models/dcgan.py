"""A deep convolutional adversarial network: a generator that is served, and the discriminator that trains it.

x is an image, y its class, z ~ N(0, 1) the latent: x = G(z, y), and D(x, y) is high for real images of y. Each stage of
G doubles height and width and halves the channels; D does the opposite. The kernels of 4 pixels overlap evenly at
strides of 2, so that no checkerboard is built in. Batch normalisation uses batch statistics in training only: in
evaluation mode it is a fixed scale and shift, so no layer mixes the rows of a batch. Only G is in a weights file.

Sources: Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2015, section 3 and figure 1 (both networks); Odena, Dumoulin, Olah, "Deconvolution and checkerboard
artifacts", 2016; Miyato et al., "Spectral normalization for generative adversarial networks", 2018; Miyato and Koyama,
"cGANs with projection discriminator", 2018.
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

__all__ = ["Dcgan", "DcganConfig", "DcganDiscriminator"]

_SLOPE = 0.2  # of the discriminator's rectifiers below 0


@dataclass(frozen=True, kw_only=True)
class DcganConfig:
    """The shape of a generator.

    Attributes:
        height: pixels, divisible by 2^stages.
        width: pixels, divisible by 2^stages.
        channels: of the images.
        latent_dim: length of z.
        features: channels before the last stage; each stage before it has twice as many as the one after.
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
            raise ValueError(f"dcgan configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"dcgan configuration: {key} is {value!r}, must be a whole number of 1 or more")
        for key in ("height", "width"):
            if config[key] % 2 ** config["stages"]:
                raise ValueError(f"dcgan configuration: {key} is {config[key]}, must be divisible by 2^stages")
        return cls(**config)

    def widths(self, features: int) -> list[int]:
        """List the channels of the feature maps, from those at full size / 2 to the smallest."""
        return [features << stage for stage in range(self.stages)]


class Dcgan(nn.Module):
    """The generator G(z, y)."""

    def __init__(self, config: DcganConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths(config.features)
        self.small_shape = (widths[-1], config.height >> config.stages, config.width >> config.stages)
        self.input = nn.Linear(config.latent_dim + config.classes, math.prod(self.small_shape))
        layers: list[nn.Module] = []
        for stage in reversed(range(config.stages)):
            layers += [nn.BatchNorm2d(widths[stage]), nn.ReLU()]
            outputs = widths[stage - 1] if stage else config.channels
            layers += [nn.ConvTranspose2d(widths[stage], outputs, 4, stride=2, padding=1, bias=not stage)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(DcganConfig.read(config))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Compute G(z, y).

        Args:
            z: (B, latent_dim), N(0, 1).
            labels: (B,) int64.

        Returns:
            (B, C, H, W) in [-1, 1].
        """
        y = nn.functional.one_hot(labels, self.config.classes).to(z.dtype)  # (B, K)
        # (B, F·h·w) -> (B, F, h, w)
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


class DcganDiscriminator(nn.Module):
    """D(x, y) = v·h + w_y·Σh/√n: strided convolutions of spectral norm 1, and the sum over n places. Never served."""

    def __init__(self, config: DcganConfig, features: int) -> None:
        """Build the network with untrained weights.

        Args:
            config: of the generator it is trained against.
            features: channels of the first convolution; each later one has twice as many.
        """
        super().__init__()
        widths = config.widths(features)
        layers: list[nn.Module] = []
        for inputs, outputs in zip([config.channels, *widths], widths, strict=False):  # each halves height and width
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)
        pixels = (config.height >> config.stages) * (config.width >> config.stages)
        self.head = spectral_norm(nn.Linear(widths[-1] * pixels, 1))
        self.classes = spectral_norm(nn.Embedding(config.classes, widths[-1]))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute D(x, y).

        Args:
            images: (B, C, H, W) in [-1, 1].
            labels: (B,) int64.

        Returns:
            (B,), unbounded: above 0 means real.

        Source: Miyato and Koyama 2018, equation 7 (the projection).
        """
        h = self.layers(images)  # (B, F, h, w)
        scores: Tensor = self.head(h.flatten(1))[:, 0]  # (B, 1) -> (B,)
        pooled = h.sum(dim=(2, 3)) / math.sqrt(h[0, 0].numel())  # (B, F), a map of norm 1
        matches: Tensor = (self.classes(labels) * pooled).sum(dim=1)  # (B, F) -> (B,)
        return scores + matches
