"""Diffusion of images from a given one: many pictures that could have been reduced to it, larger or in colour.

The network of `handlers.models.diffusion` reads the given picture, at full size, as further channels, and is run from
pure noise by Heun's method; its law is p(x | given). The given picture is part of a draw's state. At the end each
picture is corrected so that it is reduced to exactly the given one: a larger picture by shifting the log odds of the
pixels of each block until their mean is the given pixel, which leaves black and white ones as they are, a coloured one
by scaling each pixel until its largest channel is the given grey.

Sources: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", 2022;
Saharia et al., "Image super-resolution via iterative refinement", 2022 (the given picture as channels); Blau and
Michaeli, "The perception-distortion tradeoff", 2018 (why one answer is no substitute).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.diffusion import DiffusionConfig, EdmDiffusion
from handlers.stepping import sample_in_steps

__all__ = ["ImageDiffusion", "ImageDiffusionConfig"]

_STEPS, _MAX_STEPS = 12, 256
_FARTHEST = 4.0  # distance in units of σ beyond which a pixel does not come from that end, as in EdmDiffusion
_LEAST_ODDS = 1e-4  # of a pixel whose log odds are shifted
_MOST_SHIFT = 20.0  # of log odds: beyond, every pixel is black or white
_HALVINGS = 24  # of the interval that the shift lies in


@dataclass(frozen=True, kw_only=True)
class ImageDiffusionConfig:
    """The shape of the network, and of the pictures that it is given.

    Attributes:
        diffusion: of the network and its noise levels, without classes.
        given: channels, height and width of a given picture: those of an image divided by a whole number, or one
            channel for an image of several.
    """

    diffusion: DiffusionConfig
    given: tuple[int, int, int]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration: that of `edm-diffusion`, and `given` with height, width and channels.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        diffusion = DiffusionConfig.read({key: value for key, value in config.items() if key != "given"})
        if diffusion.classes:
            raise ValueError(f"image-diffusion configuration: classes is {diffusion.classes}, must be 0")
        given, sides = config.get("given"), ("channels", "height", "width")
        if not isinstance(given, Mapping) or given.keys() != set(sides):
            raise ValueError(f"image-diffusion configuration: given is {given!r}, must have {', '.join(sides)}")
        shape = tuple(given[side] for side in sides)
        if any(type(side) is not int or side < 1 for side in shape):
            raise ValueError(f"image-diffusion configuration: given is {dict(given)}, must have whole numbers, 1+")
        read = cls(diffusion=diffusion, given=(shape[0], shape[1], shape[2]))
        is_smaller = read.scale > 1 and (shape[0], *(read.scale * side for side in shape[1:])) == diffusion.shape
        is_grey = diffusion.channels > 1 and shape == (1, diffusion.height, diffusion.width)
        if not (is_smaller or is_grey):
            raise ValueError(
                f"image-diffusion configuration: given is {dict(given)}, must be the image's size divided by a whole "
                "number and as many channels, or its size and one channel instead of several"
            )
        return read

    @property
    def scale(self) -> int:
        """How many times higher and wider than the given picture an image is."""
        return self.diffusion.height // self.given[1]


class ImageDiffusion(nn.Module):
    """A diffusion model conditional on a picture."""

    discrete: ClassVar[bool] = False

    def __init__(self, config: ImageDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.network = EdmDiffusion(config.diffusion).network
        channels = 3 * config.diffusion.channels + config.given[0]
        self.network.input = nn.Conv2d(channels, config.diffusion.features[0], 3, padding=1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(ImageDiffusionConfig.read(config))

    def enlarge(self, given: Tensor) -> Tensor:
        """Repeat each pixel of (B, C, h, w) given pictures to the size of an image, (B, C, H, W)."""
        return given.repeat_interleave(self.config.scale, dim=2).repeat_interleave(self.config.scale, dim=3)

    def denoise(self, x: Tensor, enlarged: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the images without their noise.

        Args:
            x: (B, C, H, W) float32.
            enlarged: the given pictures at full size, with values in [-1, 1].
            sigma: (B,) or, where it is the same for all rows, (1,) float64.

        Returns:
            (B, C, H, W) float32.

        Source: Karras et al. 2022, equation 7 and table 1.
        """
        data, square = self.config.diffusion.sigma_data, sigma**2 + self.config.diffusion.sigma_data**2
        coefficients = data**2 / square, sigma * data / square.sqrt(), 1 / square.sqrt(), 1 / sigma
        skip, out, into, per_sigma = (each.view(-1, 1, 1, 1).to(x) for each in coefficients)  # (S,) -> (S, 1, 1, 1)
        ends = [((x + end) * per_sigma).clamp(-_FARTHEST, _FARTHEST) for end in (1, -1)]
        labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        removed: Tensor = self.network(torch.cat([into * x, *ends, enlarged], dim=1), sigma, labels)
        return skip * x + out * removed

    def steps(self, draw: Draw) -> int:
        """Return how many steps a draw takes: 12 unless set.

        Raises:
            ValueError: steps is not in 1 to 256.
        """
        steps = _STEPS if draw.steps is None else draw.steps
        if not 1 <= steps <= _MAX_STEPS:
            raise ValueError(f"steps is {steps}, must be in 1 to {_MAX_STEPS}")
        return steps

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return a draw of two steps, which run every shape."""
        return Draw(steps=2), (0, 1)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the state before step 0 of draws that are given a grey picture."""
        grey = torch.zeros(len(noise.addresses), *self.config.given, device=noise.device, dtype=noise.dtype)
        return self.begin_given(Given(values=grey), noise, labels, draw)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return (B, C + given C, H, W): noise, and the given pictures at full size."""
        x = self.config.diffusion.sigma_max * noise.normal(Stream.LATENT, self.config.diffusion.shape)
        return torch.cat([x, self.enlarge(given.values.to(x))], dim=1)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Take the step from one noise level to the next.

        Source: Karras et al. 2022, algorithm 1.
        """
        now, after = self.config.diffusion.sigmas(self.steps(draw))[step : step + 2]
        x, enlarged = self._parts(state.to(noise.dtype))
        denoised = self.denoise(x, enlarged, _level(now, x))
        ahead = denoised + (after / now) * (x - denoised)
        if after > 0:
            slopes = (x - denoised) / now + (ahead - self.denoise(ahead, enlarged, _level(after, x))) / after
            ahead = x + 0.5 * (after - now) * slopes
        return torch.cat([ahead, enlarged], dim=1)

    def finish(self, state: Tensor) -> Tensor:
        """Return the images, (B, C, H, W) in [-1, 1], each of which is reduced to the given picture."""
        x, enlarged = ((part.clamp(-1, 1) + 1) / 2 for part in self._parts(state))
        match = _match_values if self.config.scale == 1 else self._match_blocks
        return (2 * match(x, enlarged) - 1).clamp(-1, 1)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row under a grey picture (see `Sampler.sample`); the model serves TRANSLATE alone."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        channels = self.config.diffusion.channels
        return state[:, :channels].contiguous(), state[:, channels:].contiguous()

    def _match_blocks(self, images: Tensor, enlarged: Tensor) -> Tensor:
        """Shift the log odds of the pixels of each block, by halving an interval, until their mean is the given pixel.

        Args:
            images: (B, C, H, W) in [0, 1].
            enlarged: the same of the given pictures.
        """
        odds, scale = images.clamp(_LEAST_ODDS, 1 - _LEAST_ODDS).logit(), self.config.scale
        low, high = torch.full_like(enlarged, -_MOST_SHIFT), torch.full_like(enlarged, _MOST_SHIFT)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            mean = nn.functional.avg_pool2d((odds + middle).sigmoid(), scale)
            is_dark = self.enlarge(mean) < enlarged
            low, high = torch.where(is_dark, middle, low), torch.where(is_dark, high, middle)
        return (odds + (low + high) / 2).sigmoid()


def _match_values(images: Tensor, greys: Tensor) -> Tensor:
    """Scale each pixel of (B, C, H, W) in [0, 1] until its largest channel is the grey of (B, 1, H, W)."""
    largest = images.amax(dim=1, keepdim=True)
    return torch.where(largest > 0, images * (greys / largest.clamp(min=torch.finfo(images.dtype).tiny)), greys)


def _level(sigma: float, x: Tensor) -> Tensor:
    return torch.tensor([sigma], dtype=torch.float64, device=x.device)
