"""A generative adversarial network of points in the plane: the smallest model in which mode collapse can be seen.

x is a point, z ~ N(0, 1) the latent: x = G(z), and D(x) is high for real points. Both are perceptrons with two hidden
layers. Only G is in a weights file. No row depends on another one.

Sources: Goodfellow et al., "Generative adversarial nets", 2014; Metz et al., "Unrolled generative adversarial
networks", 2017, section 3.1 (normals on a ring); Mescheder, Geiger, Nowozin, "Which training methods for GANs do
actually converge?", 2018, section 4 (the gradient penalty).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["PointDiscriminator", "PointGan", "PointGanConfig", "gradient_penalty"]

_SLOPE = 0.2  # of the discriminator's rectifiers below 0
_WHOLE = ("length", "latent_dim", "hidden")


@dataclass(frozen=True, kw_only=True)
class PointGanConfig:
    """The shape of a generator of points.

    Attributes:
        length: coordinates of a point, 1 or 2.
        latent_dim: length of z.
        hidden: width of both hidden layers.
        bound: coordinates of samples are within [-bound, bound].
    """

    length: int
    latent_dim: int
    hidden: int
    bound: float

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"point-gan configuration has unknown or missing keys {wrong}; it takes {known}")
        for key in _WHOLE:
            if type(config[key]) is not int or config[key] < 1:
                raise ValueError(
                    f"point-gan configuration: {key} is {config[key]!r}, must be a whole number of 1 or more"
                )
        if config["length"] > 2:
            raise ValueError(f"point-gan configuration: length is {config['length']}, must be 1 or 2")
        bound = config["bound"]
        if type(bound) not in (int, float) or not 0 < bound < math.inf:
            raise ValueError(f"point-gan configuration: bound is {bound!r}, must be a number above 0")
        return cls(**config)


class PointGan(nn.Module):
    """The generator G(z)."""

    def __init__(self, config: PointGanConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, config.hidden), nn.ReLU(),
            nn.Linear(config.hidden, config.hidden), nn.ReLU(),
            nn.Linear(config.hidden, config.length),
        )  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(PointGanConfig.read(config))

    def forward(self, z: Tensor) -> Tensor:
        """Compute G(z), (B, length), unbounded, of z, (B, latent_dim), N(0, 1)."""
        points: Tensor = self.layers(z)
        return points

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one point for each row: z by address, then the generator.

        Args:
            noise: B addresses.
            labels: not read.
            draw: truncation bounds the components of z.
            deadline: checked once, before the generator runs.

        Returns:
            (B, length) within [-bound, bound].

        Raises:
            DeadlinePassed: the deadline passed.
        """
        z = noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=draw.truncation)
        deadline.check()
        points: Tensor = self(z)
        return points.clamp(-self.config.bound, self.config.bound)


class PointDiscriminator(nn.Module):
    """D(x), above 0 for points that look real. Never served."""

    def __init__(self, length: int, hidden: int) -> None:
        """Build the network with untrained weights, for points of `length` coordinates."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(length, hidden), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden, hidden), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, points: Tensor) -> Tensor:
        """Compute D(x), (B,), of points, (B, length)."""
        scores: Tensor = self.layers(points)[:, 0]  # (B, 1) -> (B,)
        return scores


def gradient_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Compute ½ E |∇D(x)|² at real points, (B, length): () penalty, differentiable in the discriminator's weights.

    Source: Mescheder, Geiger, Nowozin 2018, equation 9 (R1).
    """
    points = real.detach().requires_grad_(True)
    (slopes,) = torch.autograd.grad(discriminator(points).sum(), points, create_graph=True)
    return 0.5 * slopes.square().sum(dim=1).mean()
