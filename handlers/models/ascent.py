"""Gradient ascent on a classifier's score: pictures that it is sure of, and that nobody else would call a digit.

A draw starts from uniform noise, or from a given picture, and takes steps of one length: x ← clip(x + η ∇ log p(y|x) /
‖∇ log p(y|x)‖), with the norm over the pixels of a row. p(y|x) is a classifier's of `handlers.models.classifier`, whose
weights file this family reads; its layers are repeated here, since the source of a family is one file. p(y|x) says
which class a picture is of if it is of one, and nothing about p(x): that the result looks like noise is the lesson.

Sources: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2014, section 2; Nguyen, Yosinski, Clune,
"Deep neural networks are easily fooled", 2015 (from noise); Szegedy et al., "Intriguing properties of neural networks",
2014 (from a picture).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps, take_steps

__all__ = ["AscentConfig", "ClassifierAscent", "ascend", "score_gradient"]

_GROUPS = 4
_STEPS, _MAX_STEPS = 50, 1000
_LEAST_NORM = 0.05  # of a gradient, below which steps shrink: where the classifier is certain, only rounding is left


@dataclass(frozen=True, kw_only=True)
class AscentConfig:
    """The shape of the classifier, and the length of a step.

    Attributes:
        height: pixels, divisible by 4.
        width: pixels, divisible by 4.
        channels: of the images.
        classes: 2 or more.
        features: channels of the first convolution, divisible by 4; the other convolutions have twice as many.
        embedding_dim: inputs of the last layer.
        step_size: Euclidean length of a step, before pixels are clipped.
    """

    height: int
    width: int
    channels: int
    classes: int
    features: int
    embedding_dim: int
    step_size: float

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"ascent configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if key == "step_size":
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise ValueError(f"ascent configuration: {key} is {value!r}, must be a number above 0")
            elif type(value) is not int or value < 1:
                raise ValueError(f"ascent configuration: {key} is {value!r}, must be a whole number of 1 or more")
        for key in ("height", "width", "features"):
            if config[key] % 4:
                raise ValueError(f"ascent configuration: {key} is {config[key]}, must be divisible by 4")
        if config["classes"] < 2:
            raise ValueError("ascent configuration: classes is 1, must be 2 or more")
        return cls(**config)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width


class ClassifierAscent(nn.Module):
    """A classifier, and steps towards pictures to which it gives a label; a label is the class that they rise to."""

    discrete: ClassVar[bool] = False

    def __init__(self, config: AscentConfig) -> None:
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
        return cls(AscentConfig.read(config))

    def forward(self, images: Tensor) -> Tensor:
        """Compute class logits, (B, classes), of (B, C, H, W) in [0, 1]."""
        h = self.convolutions(images).flatten(1)  # (B, 2F, H/4, W/4) -> (B, 2F·H/4·W/4)
        logits: Tensor = self.head(self.features(h))
        return logits

    def steps(self, draw: Draw) -> int:
        """Return how many steps a draw takes: 50 unless set.

        Raises:
            ValueError: steps is not in 1 to 1000.
        """
        steps = _STEPS if draw.steps is None else draw.steps
        if not 1 <= steps <= _MAX_STEPS:
            raise ValueError(f"steps is {steps}, must be in 1 to {_MAX_STEPS}")
        return steps

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return a draw of two steps, which run every shape."""
        return Draw(steps=2), (0, 1)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return pictures of noise, (B, C, H, W), uniform in [0, 1)."""
        pixels = noise.uniform(Stream.LATENT, torch.Size(self.config.shape).numel())
        return pixels.reshape(-1, *self.config.shape).to(noise.device, noise.dtype)  # (B, C·H·W) -> (B, C, H, W)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the given pictures, from which steps lead away, with noise where a mask says that none are given."""
        if given.mask is None:
            return given.values
        return torch.where(given.mask > 0.5, given.values, self.begin(noise, labels, draw).to(given.values))

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Take one step, (B, C, H, W) in [0, 1].

        Raises:
            ValueError: labels is None.
        """
        if labels is None:
            raise ValueError(f"a model of {self.config.classes} classes takes one label for each row")
        return ascend(self, state.to(noise.dtype), labels, self.config.step_size)

    def finish(self, state: Tensor) -> Tensor:
        """Return the pictures, (B, C, H, W) in [0, 1]."""
        return state

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture for each row, (B, C, H, W) in [0, 1] (see `Sampler.sample`)."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Change each given picture towards the class of its label, (B, C, H, W) in [0, 1]."""
        state = self.begin_given(given, noise, labels, draw)
        return self.finish(take_steps(self, state, range(self.steps(draw)), noise, labels, draw, deadline))


def ascend(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, step_size: float) -> Tensor:
    """Take one step of ascent on log p(y|x), clipped to [0, 1]; arguments as in `score_gradient`."""
    gradient = score_gradient(classifier, images, labels)
    norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp(min=_LEAST_NORM)  # (B, 1, 1, 1)
    raised: Tensor = images + step_size * gradient / norm
    return raised.clamp(0, 1)


def score_gradient(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradient of log p(y|x) by x; also in inference mode, which workers run in.

    Args:
        classifier: computes class logits, (B, classes), each row from its own picture.
        images: (B, C, H, W) floating.
        labels: (B,) int64, y.

    Returns:
        (B, C, H, W).
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = images.clone().requires_grad_()
        scores = torch.log_softmax(classifier(x).float(), dim=1)
        # Rows do not mix, so the gradient of the sum has each row's own.
        (gradient,) = torch.autograd.grad(scores.gather(1, labels.clone()[:, None]).sum(), x)
    return gradient


def _convolve(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, outputs), nn.SiLU())
