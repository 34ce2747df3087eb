"""A small convolutional classifier: class probabilities, and the features its last layer reads.

Images enter from a client or an evaluation; probabilities label them, features compare distributions. GroupNorm
normalises each row by itself, so a row's result never depends on the other rows of its batch.

Sources: LeCun, Bottou, Bengio, Haffner 1998 (convolutions, then features, then classes); Wu and He, "Group
normalization", 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["ClassifierConfig", "ConvClassifier"]

_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The shape of a classifier.

    Attributes:
        height: pixels, divisible by 4.
        width: pixels, divisible by 4.
        channels: of the images.
        classes: 2 or more.
        features: channels of the first convolution, divisible by 4; the other convolutions have twice as many.
        embedding_dim: length of the feature vectors.
    """

    height: int
    width: int
    channels: int
    classes: int
    features: int
    embedding_dim: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"classifier configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"classifier configuration: {key} is {value!r}, must be a whole number of 1 or more")
        read = cls(**config)
        for key in ("height", "width", "features"):
            if config[key] % 4:
                raise ValueError(f"classifier configuration: {key} is {config[key]}, must be divisible by 4")
        if read.classes < 2:
            raise ValueError("classifier configuration: classes is 1, must be 2 or more")
        return read


class ConvClassifier(nn.Module):
    """Three convolutions, two of which halve height and width, then features, then classes."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide = config.features, 2 * config.features
        self.convolutions = nn.Sequential(
            _convolve(config.channels, narrow, stride=1),
            _convolve(narrow, wide, stride=2),
            _convolve(wide, wide, stride=2),
        )
        flat = wide * (config.height // 4) * (config.width // 4)
        self.features = nn.Sequential(nn.Linear(flat, config.embedding_dim), nn.SiLU())
        self.head = nn.Linear(config.embedding_dim, config.classes)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(ClassifierConfig.read(config))

    def forward(self, images: Tensor) -> Tensor:
        """Compute class logits.

        Args:
            images: (B, C, H, W) floating.

        Returns:
            (B, classes) floating, unnormalised.
        """
        logits: Tensor = self.head(self.embed(images))
        return logits

    def classify(self, images: Tensor) -> Tensor:
        """Compute class probabilities.

        Args:
            images: (B, C, H, W) floating in the card's value range.

        Returns:
            (B, classes) float32 whatever the precision of the layers, so that rows sum to 1.
        """
        return torch.softmax(self(images).float(), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Compute feature vectors, the input of the last layer.

        Args:
            images: (B, C, H, W) floating in the card's value range.

        Returns:
            (B, embedding_dim) floating.
        """
        h = self.convolutions(images).flatten(1)  # (B, 2F, H/4, W/4) -> (B, 2F·H/4·W/4)
        features: Tensor = self.features(h)
        return features


def _convolve(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, outputs), nn.SiLU())
