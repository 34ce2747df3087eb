"""The mean picture: a network trained on the squared error, which answers a given picture by the mean of all answers.

It is the baseline of `handlers.models.image_diffusion`: nothing has a smaller squared error, and the mean of many
sharp pictures is blurred, that of many colours grey. A network of convolutions reads the given picture at full size,
descends to smaller sizes and returns, with features added on the way.

Source: Blau and Michaeli, "The perception-distortion tradeoff", 2018; Ronneberger, Fischer, Brox, "U-Net: convolutional
networks for biomedical image segmentation", 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

from torch import Tensor, nn

from handlers.family import Deadline, Draw, Given, Noise

__all__ = ["ImageRegressor", "ImageRegressorConfig"]

_GROUPS = 8  # of each normalisation


@dataclass(frozen=True, kw_only=True)
class ImageRegressorConfig:
    """The shape of the network.

    Attributes:
        height: pixels of an image, divisible by 2 for each feature size after the first.
        width: the same.
        channels: of an image.
        given: channels, height and width of a given picture, whose size is an image's divided by a whole number.
        features: channels at full size, half size, and so on; multiples of 8.
    """

    height: int
    width: int
    channels: int
    given: tuple[int, int, int]
    features: tuple[int, ...]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(known) ^ config.keys()):
            raise ValueError(f"image-regressor configuration has unknown or missing keys {wrong}; it takes {known}")
        given, features = config["given"], config["features"]
        sides = ("channels", "height", "width")
        if not isinstance(given, Mapping) or given.keys() != set(sides):
            raise ValueError(f"image-regressor configuration: given is {given!r}, must have {', '.join(sides)}")
        if any(type(each[side]) is not int or each[side] < 1 for each in (config, given) for side in sides):
            raise ValueError("image-regressor configuration: height, width and channels must be whole numbers, 1+")
        is_list = isinstance(features, list | tuple) and len(features) > 0
        if not is_list or any(type(f) is not int or f < 1 or f % _GROUPS for f in features):
            raise ValueError(f"image-regressor configuration: features is {features!r}, must list multiples of 8")
        for side in ("height", "width"):
            if config[side] % given[side] or config[side] % 2 ** (len(features) - 1):
                raise ValueError(
                    f"image-regressor configuration: {side} is {config[side]}, must be divisible by the given "
                    f"{side} and by 2^(sizes - 1)"
                )
        shape = given["channels"], given["height"], given["width"]
        return cls(**{**config, "given": shape, "features": tuple(features)})


class ImageRegressor(nn.Module):
    """A network that returns one picture for each given one."""

    def __init__(self, config: ImageRegressorConfig) -> None:
        super().__init__()
        self.config = config
        features = config.features
        self.enlarge = nn.Upsample((config.height, config.width), mode="nearest")
        self.input = nn.Conv2d(config.given[0], features[0], 3, padding=1)
        self.descending = nn.ModuleList(_layer(f) for f in features[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(features))
        self.ascending = nn.ModuleList(nn.Sequential(_layer(f), _layer(f)) for f in features)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(b, a, 3, padding=1)) for a, b in pairwise(features)
        )
        self.output = _zeroed(nn.Conv2d(features[0], config.channels, 3, padding=1))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(ImageRegressorConfig.read(config))

    def forward(self, given: Tensor) -> Tensor:
        """Estimate the mean picture of (B, c, h, w) given ones, (B, C, H, W); both have values in [0, 1]."""
        h, passed = self.input(self.enlarge(given)), []
        for layer, down in zip(self.descending, self.down, strict=True):
            passed.append(h + layer(h))
            h = down(passed[-1])
        for number in reversed(range(len(self.ascending))):
            if number < len(passed):
                h = passed[number] + self.up[number](h)
            for layer in self.ascending[number].children():
                h = h + layer(h)
        mean: Tensor = self.output(h)
        return mean

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Return the mean picture of each given one, (B, C, H, W) in [0, 1] (see `Translator.translate`)."""
        return self(given.values).clamp(0, 1)  # type: ignore[no-any-return]


def _layer(features: int) -> nn.Sequential:
    """Build what is added to features; at first, nothing is."""
    last = _zeroed(nn.Conv2d(features, features, 3, padding=1))
    return nn.Sequential(nn.GroupNorm(_GROUPS, features), nn.SiLU(), last)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer
