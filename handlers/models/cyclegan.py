"""Translation between two kinds of pictures, learned without pairs: one generator for each direction.

x is a picture with pixels in [-1, 1]; a row's label chooses the generator that reads it. Every generator halves height
and width twice, runs residual blocks at that size, and doubles them again. Instance normalisation computes its
statistics from one row, so that no row depends on another. A generator reads all rows of a batch whose labels differ,
and each row takes the result of its own: gathered rows would run at sizes at which kernels round differently.

The discriminator scores patches of a picture; it is only needed for training and is in no weights file.

Sources: Zhu, Park, Isola, Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks",
2017, sections 4 and 7.1; Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer", 2016 (layers);
Ulyanov, Vedaldi, Lempitsky, "Instance normalization", 2016; Mao et al., "Least squares generative adversarial
networks", 2017; Odena, Dumoulin, Olah, "Deconvolution and checkerboard artifacts", 2016 (enlarging before convolving).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from handlers.family import Deadline, Draw, Given, Noise

__all__ = ["CycleGan", "CycleGanConfig", "PatchDiscriminator", "discriminator_loss", "generator_loss"]

_DIRECTIONS = 2
_SHRINKS = 4  # height and width, in the middle of a generator
_SLOPE = 0.2  # of the discriminator's rectifiers below 0


@dataclass(frozen=True, kw_only=True)
class CycleGanConfig:
    """The shape of the generators, which have the same one.

    Attributes:
        height: pixels, divisible by 4.
        width: pixels, divisible by 4.
        channels: of the pictures.
        features: channels at full size; at half size there are twice, at a quarter four times as many.
        blocks: residual blocks.
    """

    height: int
    width: int
    channels: int
    features: int
    blocks: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"cyclegan configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"cyclegan configuration: {key} is {value!r}, must be a whole number of 1 or more")
        for key in ("height", "width"):
            if config[key] % _SHRINKS:
                raise ValueError(f"cyclegan configuration: {key} is {config[key]}, must be divisible by {_SHRINKS}")
        return cls(**config)


class CycleGan(nn.Module):
    """Two generators; label 0 chooses the first, from kind A to B, label 1 the second, from B to A."""

    def __init__(self, config: CycleGanConfig) -> None:
        super().__init__()
        self.config = config
        self.generators = nn.ModuleList(_build_generator(config) for _ in range(_DIRECTIONS))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(CycleGanConfig.read(config))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Translate (B, C, H, W) in [-1, 1], each by the generator of its label, (B,) int64."""
        translated = images
        for direction, generator in enumerate(self.generators):
            chosen = labels == direction
            if bool(chosen.any()):
                translated = torch.where(chosen[:, None, None, None], generator(images), translated)
        return translated

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Translate each given picture.

        Args:
            given: (B, C, H, W) in [-1, 1].
            labels: (B,) int64, the direction of each row.
            noise: not read.
            draw: not read.
            deadline: checked once, before the generators run.

        Returns:
            (B, C, H, W) in [-1, 1].

        Raises:
            ValueError: labels is None.
            DeadlinePassed: the deadline passed.
        """
        if labels is None:
            raise ValueError(f"a model of {_DIRECTIONS} directions takes one label for each row")
        deadline.check()
        images: Tensor = self(given.values, labels)
        return images


class PatchDiscriminator(nn.Module):
    """D(x): a score of each patch of 18×18 pixels. Never served.

    Source: Zhu et al. 2017, section 7.1, with one convolution less, for small pictures.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, features, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(features, 2 * features, 4, stride=2, padding=1), _normalise(2 * features), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * features, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Score (B, C, H, W) in [-1, 1]: (B, 1, H/4, W/4), trained towards 1 for real pictures and 0 for others."""
        scores: Tensor = self.layers(images)
        return scores


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute half the mean squares of D(real) - 1 and of D(fake), ().

    Source: Mao et al. 2017, equation 2 with a = 0 and b = 1.
    """
    return 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Compute the mean square of D(fake) - 1, ().

    Source: Zhu et al. 2017, section 4, "Training details".
    """
    return ((fake - 1) ** 2).mean()


class _Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), _normalise(features), nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1), _normalise(features),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layers(x)
        return x + added


def _build_generator(config: CycleGanConfig) -> nn.Sequential:
    """Build (B, C, H, W) -> (B, C, H, W), in [-1, 1] both."""
    narrow, wide, widest = config.features, 2 * config.features, 4 * config.features
    return nn.Sequential(
        nn.Conv2d(config.channels, narrow, 5, padding=2), _normalise(narrow), nn.ReLU(),
        nn.Conv2d(narrow, wide, 3, stride=2, padding=1), _normalise(wide), nn.ReLU(),
        nn.Conv2d(wide, widest, 3, stride=2, padding=1), _normalise(widest), nn.ReLU(),
        *(_Block(widest) for _ in range(config.blocks)),
        nn.Upsample(scale_factor=2.0), nn.Conv2d(widest, wide, 3, padding=1), _normalise(wide), nn.ReLU(),
        nn.Upsample(scale_factor=2.0), nn.Conv2d(wide, narrow, 3, padding=1), _normalise(narrow), nn.ReLU(),
        nn.Conv2d(narrow, config.channels, 5, padding=2), nn.Tanh(),
    )  # fmt: skip


def _normalise(features: int) -> nn.GroupNorm:
    """Normalise every channel of every row by itself: groups of one channel are instance normalisation."""
    return nn.GroupNorm(features, features)
