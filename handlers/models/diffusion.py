"""Diffusion of images: a network that removes noise, run from pure noise to a picture over decreasing noise levels.

x is an image with pixels in [-1, 1], σ the standard deviation of the noise on it, D(x, σ, y) the network's estimate of
the image without it. A sample follows dx/dσ = (x - D) / σ from σ_max to 0, by Heun's method, or, with `eta`, by DDIM
with a share of the noise drawn anew. The grid of σ is fixed by `steps`, so that no row depends on another. SCORE
reports a variational bound and the density of the same differential equation, both of pixels with finitely many levels.

The network also reads the distance of each pixel from -1 and 1 in units of σ: most pixels of a digit are exactly
black, and without it noise much smaller than the picture's contrast is invisible to it.

Sources: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", 2022; Ho,
Jain, Abbeel, "Denoising diffusion probabilistic models", 2020; Song, Meng, Ermon, "Denoising diffusion implicit
models", 2021; Ho and Salimans, "Classifier-free diffusion guidance", 2022; Song et al., "Score-based generative
modeling through stochastic differential equations", 2021; Kingma et al., "Variational diffusion models", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps

__all__ = ["DiffusionConfig", "EdmDiffusion"]

_STEPS, _MAX_STEPS = 18, 256
_GROUPS = 8  # of each normalisation
_EMBEDDED = 64  # length of the embedding of σ
_LEAST_EMBEDDED = 0.02  # below this σ, denoising is the same but for its scale
_FREQUENCIES = tuple(0.1 * 40 ** (k / 15) for k in range(16))
_FARTHEST = 4.0  # distance in units of σ beyond which a pixel does not come from that end
_LEAST_PROBES = 2  # for an estimate of their error
_PROBES_AT = 2**20  # step of the first noise of likelihoods, above all of bounds
_UNIFORM_SHARE = 1e-6  # of the reconstructed law, so that no level is impossible
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The shape of a network that removes noise.

    Attributes:
        height: pixels, divisible by 2 for each feature size after the first.
        width: the same.
        channels: of the images.
        classes: 0 for an unconditional model.
        features: channels at full size, half size, and so on; multiples of 8.
        levels: a pixel can have, evenly spaced from -1 to 1.
        sigma_data: standard deviation of the pixels.
        sigma_min: the least noise level before 0.
        sigma_max: the first noise level.
        rho: how densely levels lie at the low end.
    """

    height: int
    width: int
    channels: int
    classes: int
    features: tuple[int, ...]
    levels: int = 256
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        needed = {"height", "width", "channels", "classes", "features"}
        if wrong := sorted((set(config) - set(known)) | (needed - set(config))):
            raise ValueError(f"diffusion configuration has unknown or missing keys {wrong}; it takes {known}")
        least = {"height": 1, "width": 1, "channels": 1, "classes": 0, "levels": 2}
        for key in config.keys() & least:
            if type(value := config[key]) is not int or value < least[key]:
                raise ValueError(f"diffusion configuration: {key} is {value!r}, must be a whole number, {least[key]}+")
        for key in config.keys() - least - {"features"}:
            if type(value := config[key]) not in (int, float) or not 0 < value < math.inf:
                raise ValueError(f"diffusion configuration: {key} is {value!r}, must be a number above 0")
        features = config["features"]
        is_list = isinstance(features, list | tuple) and len(features) > 0
        if not is_list or any(type(f) is not int or f < 1 or f % _GROUPS for f in features):
            raise ValueError(f"diffusion configuration: features is {features!r}, must list multiples of {_GROUPS}")
        for key in ("height", "width"):
            if config[key] % 2 ** (len(features) - 1):
                raise ValueError(f"diffusion configuration: {key} is {config[key]}, must be divisible by 2^(sizes - 1)")
        read = cls(**{**config, "features": tuple(features)})
        if read.sigma_min >= read.sigma_max:
            raise ValueError(f"diffusion configuration: sigma_min is {read.sigma_min}, must be below sigma_max")
        return read

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """Compute the noise levels of a draw, steps + 1 of them: from sigma_max to sigma_min, and 0.

        Source: Karras et al. 2022, equation 5.
        """
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        places = [i / max(1, steps - 1) for i in range(steps)]
        return (*((ends[0] + place * (ends[1] - ends[0])) ** self.rho for place in places), 0.0)


class EdmDiffusion(nn.Module):
    """A diffusion model conditional on a class; the label `classes`, or no labels, stands for no class."""

    discrete: ClassVar[bool] = False

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _UNet(config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(DiffusionConfig.read(config))

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Estimate the images without their noise.

        Args:
            x: (B, C, H, W) float32.
            sigma: (B,) or, where it is the same for all rows, (1,) float64.
            labels: (B,) int64, where `classes` is no class; None: all are.

        Returns:
            (B, C, H, W) float32.

        Source: Karras et al. 2022, equation 7 and table 1.
        """
        data, square = self.config.sigma_data, sigma**2 + self.config.sigma_data**2
        coefficients = data**2 / square, sigma * data / square.sqrt(), 1 / square.sqrt(), 1 / sigma
        skip, out, into, per_sigma = (_over_pixels(each).to(x) for each in coefficients)
        ends = [((x + end) * per_sigma).clamp(-_FARTHEST, _FARTHEST) for end in (1, -1)]
        if labels is None:
            labels = torch.full((len(x),), self.config.classes, device=x.device)
        removed: Tensor = self.network(torch.cat([into * x, *ends], dim=1), sigma, labels)
        return skip * x + out * removed

    def steps(self, draw: Draw) -> int:
        """Return how many steps a draw takes: 18 unless set.

        Raises:
            ValueError: steps is not in 1 to 256.
        """
        steps = _STEPS if draw.steps is None else draw.steps
        if not 1 <= steps <= _MAX_STEPS:
            raise ValueError(f"steps is {steps}, must be in 1 to {_MAX_STEPS}")
        return steps

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return a draw of two steps, which run every shape."""
        return Draw(steps=2, importance_samples=1), (0, 1)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return (B, 2, C, H, W): noise, and no known pixels, which are NaN."""
        x = self.config.sigma_max * noise.normal(Stream.LATENT, self.config.shape)
        return torch.stack([x, torch.full_like(x, math.nan)], dim=1)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return (B, 2, C, H, W): noise around the known pixels, and these."""
        x, known = self.begin(noise, labels, draw).unbind(1)
        known = given.values if given.mask is None else torch.where(given.mask > 0.5, given.values, known)
        return torch.stack([self._place_known(x, known, self.config.sigma_max, noise), known.to(x)], dim=1)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Take the step from one noise level to the next.

        Source: Karras et al. 2022, algorithm 1; Song et al. 2021 (DDIM), equations 12 and 16, for x/√ᾱ.
        """
        now, after = self.config.sigmas(self.steps(draw))[step : step + 2]
        x, known = (part.contiguous() for part in state.unbind(1))
        denoised = self._guided(x, now, labels, draw)
        drawn = (draw.eta or 0.0) * after * math.sqrt(now**2 - after**2) / now  # standard deviation of fresh noise
        ahead = denoised + (math.sqrt(after**2 - drawn**2) / now) * (x - denoised)
        if drawn > 0:
            ahead = ahead + drawn * noise.normal(Stream.STEP, self.config.shape, step=step)
        ahead = self._place_known(ahead, known, after, noise)
        if draw.eta is None and after > 0:
            slopes = (x - denoised) / now + (ahead - self._guided(ahead, after, labels, draw)) / after
            ahead = self._place_known(x + 0.5 * (after - now) * slopes, known, after, noise)
        return torch.stack([ahead, known], dim=1)

    def finish(self, state: Tensor) -> Tensor:
        """Return the images, (B, C, H, W) in [-1, 1]."""
        return state[:, 0].clamp(-1, 1)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row, (B, C, H, W) in [-1, 1] (see `Sampler.sample`)."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute a lower bound and an estimate of log p(x|y), and the estimate's standard error, in nats.

        Pixels are rounded to the nearest of the levels. `steps` is that of the grid of σ, at least 2; each of the
        importance samples has its own noise, and the estimate has at least two.

        Returns:
            (B, 3) float64.
        """
        sigmas = self.config.sigmas(max(2, self.steps(draw)))[:-1]
        samples = draw.importance_samples or 1
        top = self.config.levels - 1
        levels = ((images.double() + 1) * (0.5 * top)).round().clamp(0, top)
        x = (2 * levels / top - 1).float()
        scored = _Scored(x=x, levels=levels, sigmas=sigmas, labels=labels, noise=noise, deadline=deadline)
        bound = torch.stack([self._bound(scored, i) for i in range(samples)], dim=1).mean(dim=1)
        probes = max(_LEAST_PROBES, samples)
        estimates = torch.stack([self._likelihood(scored, i) for i in range(probes)], dim=1)
        return torch.stack([bound, estimates.mean(dim=1), estimates.std(dim=1) / math.sqrt(probes)], dim=1)

    def _guided(self, x: Tensor, sigma: float, labels: Tensor | None, draw: Draw) -> Tensor:
        """Denoise, and move away from the estimate without a class.

        Source: Ho and Salimans 2022, with 1 as the scale that leaves the estimate as it is.
        """
        level = torch.tensor([sigma], dtype=torch.float64, device=x.device)
        denoised, scale = self.denoise(x, level, labels), draw.guidance_scale
        if labels is None or scale is None or scale == 1:
            return denoised
        unconditional = self.denoise(x, level, None)
        return unconditional + scale * (denoised - unconditional)

    def _place_known(self, x: Tensor, known: Tensor, sigma: float, noise: Noise) -> Tensor:
        """Replace known pixels by themselves with the noise of a level, always the same noise."""
        if sigma > 0 and not bool(known.isnan().all()):
            known = known + sigma * noise.normal(Stream.LATENT, self.config.shape)
        return torch.where(known.isnan(), x, known)

    def _bound(self, scored: _Scored, sample: int) -> Tensor:
        """Estimate the variational bound of log p(x|y) with one noise at each level, (B,).

        Source: Ho et al. 2020, equation 5, and Kingma et al. 2021, equation 13: ½(1/σ'² - 1/σ²)‖x - D‖² for a step.
        """
        x, sigmas = scored.x, scored.sigmas
        total = -_sum_pixels(x.double() ** 2) / (2 * sigmas[0] ** 2)
        for number, sigma in enumerate(sigmas):
            scored.deadline.check()
            fresh = sigma * scored.noise.normal(Stream.STEP, self.config.shape, step=sample * len(sigmas) + number)
            denoised = self._guided(x + fresh, sigma, scored.labels, Draw()).double()
            if number + 1 < len(sigmas):
                total -= 0.5 * (sigmas[number + 1] ** -2 - sigma**-2) * _sum_pixels((x - denoised) ** 2)
        return total + self._reconstruction(denoised, scored)

    def _likelihood(self, scored: _Scored, probe: int) -> Tensor:
        """Estimate log p(x|y) by the differential equation from x with the least noise on it, (B,).

        log p(x) is the mean of log p(z) + log p(x|z) - log q(z|x), or more, where z is x with that noise and p(z) the
        density of the ends of the equation's paths: Heun's steps for the path, the trapezoidal rule in ln σ for the
        divergence, and one random vector for the trace. For an exact D the three add up to log p(x) for every z.

        Source: Song et al. 2021 (SDE), equation 39; Zheng et al., "Improved techniques for maximum likelihood
        estimation for diffusion ODEs", 2023 (normal dequantisation).
        """
        count, rising = scored.x[0].numel(), scored.sigmas[::-1]
        noise = scored.noise.normal(Stream.STEP, self.config.shape, step=_PROBES_AT + 2 * probe)
        uniforms = scored.noise.uniform(Stream.STEP, count, step=_PROBES_AT + 2 * probe + 1).to(noise.device)
        signs = torch.where(uniforms < 0.5, -1.0, 1.0).to(noise).view_as(noise)  # (B, C·H·W) -> (B, C, H, W)
        x = scored.x + rising[0] * noise
        log_q = -_sum_pixels(0.5 * noise.double() ** 2) - count * (math.log(rising[0]) + _HALF_LOG_2PI)
        total = self._reconstruction(self._guided(x, rising[0], scored.labels, Draw()).double(), scored) - log_q
        for now, after in pairwise(rising):
            scored.deadline.check()
            denoised, trace = self._trace(x, now, signs, scored.labels)
            ahead = denoised + (after / now) * (x - denoised)
            denoised_ahead, trace_ahead = self._trace(ahead, after, signs, scored.labels)
            x = x + 0.5 * (after - now) * ((x - denoised) / now + (ahead - denoised_ahead) / after)
            total = total + math.log(after / now) * (count - 0.5 * (trace + trace_ahead))
        log_prior = -_sum_pixels(0.5 * (x.double() / rising[-1]) ** 2) - count * (math.log(rising[-1]) + _HALF_LOG_2PI)
        return total + log_prior

    def _trace(self, x: Tensor, sigma: float, signs: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Denoise, and estimate the trace of the derivative of D by x, (B,).

        Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.
        """
        with torch.inference_mode(mode=False), torch.enable_grad():
            here, vector = x.clone().requires_grad_(), signs.clone()
            labels = None if labels is None else labels.clone()
            denoised = self._guided(here, sigma, labels, Draw())
            (product,) = torch.autograd.grad(denoised, here, vector)
        return denoised.detach(), _sum_pixels(product.double() * signs)

    def _reconstruction(self, mean: Tensor, scored: _Scored) -> Tensor:
        """Compute log p(x|z), (B,): normal around the denoised pixels, over the levels, with open ends.

        Source: Ho et al. 2020, equation 13.
        """
        top, half = self.config.levels - 1, 1 / (self.config.levels - 1)
        centre = 2 * scored.levels / top - 1 - mean  # (B, C, H, W) float64
        below = torch.where(scored.levels == 0, -math.inf, (centre - half) / scored.sigmas[-1])
        above = torch.where(scored.levels == top, math.inf, (centre + half) / scored.sigmas[-1])
        share = torch.special.ndtr(above) - torch.special.ndtr(below)
        return _sum_pixels(((1 - _UNIFORM_SHARE) * share + _UNIFORM_SHARE / self.config.levels).log())


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What scores are computed from: images and their levels, (B, C, H, W), noise levels from the largest, and rows."""

    x: Tensor
    levels: Tensor
    sigmas: tuple[float, ...]
    labels: Tensor | None
    noise: Noise
    deadline: Deadline


class _UNet(nn.Module):
    """The network F: one residual block at each falling size and two at each rising one, where the former are added.

    Sizes are changed by 3×3 convolutions, and σ and class enter as scale and shift of each block's normalisation, the
    class by a table. So no layer multiplies a matrix with as many rows as the batch, whose rounding would depend on it.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        features, narrower = config.features, config.features[:-1]
        self.widths = [2 * f for f in narrower] + [2 * f for f in reversed(features) for _ in range(2)]  # of the films
        self.input = nn.Conv2d(3 * config.channels, features[0], 3, padding=1)
        self.descending = nn.ModuleList(_Block(f) for f in narrower)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(features))
        self.ascending = nn.ModuleList(nn.Sequential(_Block(f), _Block(f)) for f in features)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairwise(features))
        self.norm = nn.GroupNorm(_GROUPS, features[0])
        self.output = _zeroed(nn.Conv2d(features[0], config.channels, 3, padding=1))
        waves = 2 * len(_FREQUENCIES)
        self.of_sigma = nn.Sequential(nn.Linear(waves, _EMBEDDED), nn.SiLU(), nn.Linear(_EMBEDDED, sum(self.widths)))
        self.of_class = _zeroed(nn.Embedding(config.classes + 1, sum(self.widths)))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Run the network on (B, 3·C, H, W), with σ (B,) or (1,) and labels (B,); return (B, C, H, W)."""
        level = 0.25 * sigma.clamp(min=_LEAST_EMBEDDED).log()[:, None]
        angles = 2 * math.pi * level * torch.tensor(_FREQUENCIES, dtype=torch.float64, device=x.device)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(x)  # (S, 2·frequencies)
        films = iter((self.of_sigma(waves) + self.of_class(labels)).split(self.widths, dim=1))
        h, passed = self.input(x), []
        for block, down in zip(self.descending, self.down, strict=True):
            passed.append(block(h, next(films)))
            h = down(passed[-1])
        for number in reversed(range(len(self.ascending))):
            if number < len(passed):
                h = passed[number] + self.up[number](nn.functional.interpolate(h, scale_factor=2.0))
            for block in self.ascending[number].children():
                h = block(h, next(films))
        output: Tensor = self.output(nn.functional.silu(self.norm(h)))
        return output


class _Block(nn.Module):
    """A residual block of two convolutions; the film, (B, 2·features), scales and shifts before the second one."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(_GROUPS, features)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second_norm = nn.GroupNorm(_GROUPS, features, affine=False)
        self.second = _zeroed(nn.Conv2d(features, features, 3, padding=1))

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = (_over_pixels(part) for part in film.chunk(2, dim=1))
        h = self.second_norm(self.first(nn.functional.silu(self.first_norm(x)))) * (1 + scale) + shift
        added: Tensor = self.second(nn.functional.silu(h))
        return x + added


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _over_pixels(values: Tensor) -> Tensor:
    """Shape (B,) to (B, 1, 1, 1), or (B, features) to (B, features, 1, 1)."""
    return values.reshape(*values.shape, *[1] * (4 - values.ndim))


def _sum_pixels(values: Tensor) -> Tensor:
    """Sum (B, C, H, W) over all but rows, (B,)."""
    return values.flatten(1).sum(dim=1)
