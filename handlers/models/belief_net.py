"""The fully visible belief net: each black-and-white pixel is a logistic regression on those before it.

p(x_i = 1 | x_<i, y) = σ(W_i x_<i + b_iy), pixels in reading order, so that log p(x) is exact and of closed form. One
step of a draw is a run of pixels; the state is the pixels alone, -1 where none is drawn yet. No layer mixes the rows of
a batch.

Sources: Frey, Hinton, Dayan, "Does the wake-sleep algorithm produce good density estimators?", 1996 (the model);
Larochelle and Murray, "The neural autoregressive distribution estimator", 2011, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fount.address import Stream
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps

__all__ = ["BeliefNetConfig", "FullyVisibleBeliefNet"]

_LEAST_ROWS = 8  # of a batch: matrix products of fewer rows are rounded differently


@dataclass(frozen=True, kw_only=True)
class BeliefNetConfig:
    """The shape of a fully visible belief net.

    Attributes:
        height: pixels.
        width: pixels.
        channels: of the images, 1.
        classes: 0 for an unconditional model.
        run: pixels drawn in a step; divides the number of all.
    """

    height: int
    width: int
    channels: int
    classes: int
    run: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known, begin = {field.name for field in fields(cls)}, "fully-visible configuration"
        if wrong := sorted(set(config) ^ known):
            raise ValueError(f"{begin} has unknown or missing keys {wrong}; it takes {sorted(known)}")
        for key, value in config.items():
            least = 0 if key == "classes" else 1
            if type(value) is not int or value < least:
                raise ValueError(f"{begin}: {key} is {value!r}, must be a whole number of {least} or more")
        if config["channels"] != 1:
            raise ValueError(f"{begin}: channels is {config['channels']}, must be 1")
        checked = cls(**config)
        if checked.pixels % checked.run:
            raise ValueError(f"{begin}: run is {checked.run}, must divide the {checked.pixels} pixels")
        return checked

    @property
    def pixels(self) -> int:
        """The number of values of a picture."""
        return self.height * self.width

    @property
    def levels(self) -> int:
        """The number of values of a pixel."""
        return 2


class FullyVisibleBeliefNet(nn.Module):
    """A fully visible belief net, conditional on a class, or on none, or unconditional."""

    discrete: ClassVar[bool] = True

    def __init__(self, config: BeliefNetConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.pixels, config.pixels))  # only below the diagonal is read
        self.bias = nn.Embedding(config.classes + 1, config.pixels)  # the last: no class
        nn.init.zeros_(self.bias.weight)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights, a fair coin for each pixel.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(BeliefNetConfig.read(config))

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Compute the logit of every pixel from those before it.

        Args:
            pixels: (B, pixels), each 0 or 1.
            labels: (B,) int64, `classes` for no class.

        Returns:
            (B, pixels).
        """
        padding = (0, 0, 0, max(_LEAST_ROWS - len(pixels), 0))
        products = functional.linear(functional.pad(pixels, padding), self.weight.tril(-1))[: len(pixels)]
        logits: Tensor = products + self.bias(labels)
        return logits

    def log_likelihood(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute log p(x|y) of images rounded to black and white, all pixels at once.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64, `classes` for no class.

        Returns:
            (B,) float64 nats.
        """
        pixels = self._binarise(images)
        signs = 2 * pixels - 1
        return functional.logsigmoid(signs * self.forward(pixels, labels)).double().sum(dim=1)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute log p(x|y), or log p(x) without labels, (B, 1) nats, exact."""
        return self.log_likelihood(images, self._label_indices(labels, images))[:, None]

    def steps(self, draw: Draw) -> int:
        """Return the number of runs of a picture."""
        return self.config.pixels // self.config.run

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return the first, the middle and the last step: all run the same shapes."""
        steps = self.steps(Draw())
        return Draw(), tuple(sorted({0, steps // 2, steps - 1}))

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return (B, C, H, W) of -1: nothing is drawn yet."""
        shape = (len(noise.addresses), self.config.channels, self.config.height, self.config.width)
        return torch.full(shape, -1.0, device=noise.device)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the given pixels, in [0, 1], and -1 elsewhere."""
        begun = self.begin(noise, labels, draw)
        values = given.values.to(begun)
        return values if given.mask is None else torch.where(given.mask > 0, values, begun)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Draw the pixels of one run that are not given."""
        config = self.config
        first = step * config.run
        indices = self._label_indices(labels, state)
        result = state.clone()
        flat = result.flatten(1)  # (B, C, H, W) -> (B, pixels), of the same memory
        if bool((flat[:, first : first + config.run] >= 0).all()):
            return result
        uniforms = noise.uniform(Stream.STEP, config.run, step=step)
        pixels = self._binarise(state)
        scale = 1.0 if draw.guidance_scale is None or labels is None else draw.guidance_scale
        for place in range(first, first + config.run):
            law = self._log_law(pixels, indices, place)
            if scale != 1:
                law_without = self._log_law(pixels, torch.full_like(indices, config.classes), place)
                law = law_without + scale * (law - law_without)
            drawn = draw_values(law, uniforms[:, place - first], draw).to(flat)
            flat[:, place] = torch.where(flat[:, place] >= 0, flat[:, place], drawn)
            pixels[:, place] = (flat[:, place] >= 0.5).to(pixels)
        return result

    def finish(self, state: Tensor) -> Tensor:
        """Return the pixels, (B, C, H, W) in [0, 1]; those that were never drawn are 0."""
        return state.clamp_min(0)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`)."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def _log_law(self, pixels: Tensor, labels: Tensor, place: int) -> Tensor:
        """Compute the log-probabilities of 0 and 1 at one pixel, (B, 2) float64.

        The sum runs over the pixels before it, for each row alone, whatever the batch.
        """
        weights = self.weight[place, :place].double()
        logit = (pixels[:, :place].double() * weights).sum(dim=1) + self.bias.weight[labels, place].double()
        return torch.stack([functional.logsigmoid(-logit), functional.logsigmoid(logit)], dim=1)

    def _binarise(self, images: Tensor) -> Tensor:
        """Round to 0 and 1, (B, C, H, W) to (B, pixels); -1, which is not drawn yet, to 0."""
        return (images.flatten(1) >= 0.5).to(self.weight.dtype)

    def _label_indices(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Return the row of the biases for each row of a batch, (B,) int64."""
        if labels is None:
            return torch.full((len(like),), self.config.classes, dtype=torch.int64, device=like.device)
        if not self.config.classes:
            raise ValueError("a model without classes takes no labels")
        return labels
