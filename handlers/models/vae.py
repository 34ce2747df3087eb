"""Variational autoencoders: plain, and conditional on a class.

x is an image, y its class, z the latent, q(z|x, y) = N(mu, exp(logvar)). p(x|z, y) is normal around the decoder's mean
with one learned σ for all pixels, or, for nearly black-and-white images, Bernoulli in each pixel: neither needs a
weight between reconstruction and divergence. With a class, p(z) = N(0, 1); without, p(z) is a learned mixture of
normals, because values of z between the classes decode to no plausible image. A sample is the decoder's mean, without
pixel noise. No layer mixes the rows of a batch.

Sources: Kingma and Welling, "Auto-encoding variational Bayes", 2014; Sohn, Lee, Yan, "Learning structured output
representation using deep conditional generative models", 2015; Rybkin, Daniilidis, Levine, "Simple and effective VAE
training with calibrated decoders", 2021 (learned σ); Tomczak and Welling, "VAE with a VampPrior", 2018 (mixture prior).
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
from handlers.family import Deadline, Draw, Noise

__all__ = ["Autoencoder", "ConditionalVae", "Elbo", "MixturePrior", "Vae", "VaeConfig", "kl_to_standard_normal"]


_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_OPTIONAL = {"hidden", "likelihood"}


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """The shape of an autoencoder.

    Attributes:
        height: pixels, divisible by 2^stages.
        width: pixels, divisible by 2^stages.
        channels: of the images.
        latent_dim: length of z.
        encoder_features: channels of the encoder's convolution at full size; the smaller maps have twice as many.
        decoder_features: the same for the decoder.
        stages: number of times height and width are halved, 1 or more.
        classes: of the conditional model; 0 for the unconditional one.
        components: normals in the prior of the unconditional model; 0 for N(0, 1).
        hidden: width of the dense layers on both sides of z, where latent and class are combined; 0 for no such layers.
        likelihood: p(x|z, y) is "normal" or "bernoulli".
    """

    height: int
    width: int
    channels: int
    latent_dim: int
    encoder_features: int
    decoder_features: int
    stages: int
    classes: int = 0
    components: int = 0
    hidden: int = 0
    likelihood: str = "normal"

    @classmethod
    def read(cls, config: Mapping[str, Any], *, conditional: bool) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = {field.name for field in fields(cls)} - {"components" if conditional else "classes"}
        if wrong := sorted((set(config) - known) | (known - _OPTIONAL - set(config))):
            raise ValueError(f"vae configuration has unknown or missing keys {wrong}; it takes {sorted(known)}")
        if (likelihood := config.get("likelihood", "normal")) not in ("normal", "bernoulli"):
            raise ValueError(f"vae configuration: likelihood is {likelihood!r}, must be normal or bernoulli")
        for key, value in config.items():
            if key != "likelihood" and (type(value) is not int or value < 1):
                raise ValueError(f"vae configuration: {key} is {value!r}, must be a whole number of 1 or more")
        for key in ("height", "width"):
            if config[key] % 2 ** config["stages"]:
                raise ValueError(f"vae configuration: {key} is {config[key]}, must be divisible by 2^stages")
        return cls(**config)

    def small_shape(self, features: int) -> tuple[int, int, int]:
        """Return channels, height and width of the smallest feature map, for encoder or decoder features."""
        return 2 * features, self.height >> self.stages, self.width >> self.stages


@dataclass(frozen=True, kw_only=True)
class Elbo:
    """The two parts of the negative evidence lower bound, in nats, means over the batch.

    Attributes:
        reconstruction: () -log p(x|z, y).
        divergence: () KL(q(z|x, y) || p(z)).
    """

    reconstruction: Tensor
    divergence: Tensor


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """Compute the divergence of N(mu, exp(logvar)) from N(0, 1), summed over z.

    Args:
        mu: (B, latent_dim).
        logvar: (B, latent_dim), log of the variances.

    Returns:
        (B,) nats.

    Source: Kingma and Welling 2014, appendix B.
    """
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


class MixturePrior(nn.Module):
    """p(z) as a mixture of equally likely normals with learned means and scales.

    Source: Tomczak and Welling 2018, section 2 (the mixture of Gaussians).
    """

    def __init__(self, components: int, latent_dim: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.full((components, latent_dim), -0.5))

    def log_density(self, z: Tensor) -> Tensor:
        """Compute log p(z), (B,) nats, at z, (B, latent_dim)."""
        standard = (z[:, None] - self.means) * (-self.log_scales).exp()  # (B, components, latent_dim)
        densities = -0.5 * standard**2 - self.log_scales - _HALF_LOG_2PI
        return torch.logsumexp(densities.sum(dim=2), dim=1) - math.log(len(self.means))

    def place(self, epsilon: Tensor, component: Tensor) -> Tensor:
        """Shift and scale standard normals to their components.

        Args:
            epsilon: (B, latent_dim), N(0, 1).
            component: (B,) int64.

        Returns:
            (B, latent_dim), z.
        """
        return self.means[component] + self.log_scales[component].exp() * epsilon


class Autoencoder(nn.Module):
    """The base of both autoencoders; the prior is N(0, 1) unless a subclass has another."""

    conditional: ClassVar[bool] = False

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _build_encoder(config)
        self.small_shape = config.small_shape(config.decoder_features)
        inside = [config.hidden] * 2 if config.hidden else []
        self.decoder_input = _connect(config.latent_dim + config.classes, *inside, math.prod(self.small_shape))
        self.decoder = _build_decoder(config)
        if config.likelihood == "normal":
            self.log_sigma = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(VaeConfig.read(config, conditional=cls.conditional))

    def divergence(self, mu: Tensor, logvar: Tensor, epsilon: Tensor) -> Tensor:
        """Compute KL(q(z|x, y) || p(z)), (B,) nats; priors without a closed form use epsilon, the noise of z."""
        return kl_to_standard_normal(mu, logvar)

    def draw_latents(self, noise: Noise, truncation: float | None) -> Tensor:
        """Draw z from the prior by address, (B, latent_dim)."""
        return noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=truncation)

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute mu and logvar of q(z|x, y), each (B, latent_dim).

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64, or None when unconditional.
        """
        y = self._one_hot(labels, len(images), images)
        # (B, K) -> (B, K, H, W): constant over all pixels
        maps = y[:, :, None, None].expand(-1, -1, self.config.height, self.config.width)
        mu, logvar = self.encoder(torch.cat([images, maps], dim=1)).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the mean of p(x|z, y).

        Args:
            z: (B, latent_dim).
            labels: (B,) int64, or None when unconditional.

        Returns:
            (B, C, H, W) in [0, 1].
        """
        h = self.decoder_input(torch.cat([z, self._one_hot(labels, len(z), z)], dim=1))
        # (B, 2F·h·w) -> (B, 2F, h, w)
        return torch.sigmoid(self.decoder(nn.functional.silu(h.unflatten(1, self.small_shape))))

    def elbo(self, images: Tensor, labels: Tensor | None, epsilon: Tensor) -> Elbo:
        """Estimate the evidence lower bound with one z for each image.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64, or None when unconditional.
            epsilon: (B, latent_dim), N(0, 1).

        Source: Kingma and Welling 2014, equation 10.
        """
        mu, logvar = self.encode(images, labels)
        mean = self.decode(mu + (0.5 * logvar).exp() * epsilon, labels)
        reconstruction = self._negative_log_likelihood(images, mean).mean()
        return Elbo(reconstruction=reconstruction, divergence=self.divergence(mu, logvar, epsilon).mean())

    def _negative_log_likelihood(self, images: Tensor, mean: Tensor) -> Tensor:
        """Compute -log p(x|z, y), (B,) nats."""
        if self.config.likelihood == "bernoulli":
            return nn.functional.binary_cross_entropy(mean, images, reduction="none").flatten(1).sum(dim=1)
        squares = ((images - mean) ** 2).flatten(1).sum(dim=1)  # (B, C, H, W) -> (B,)
        constant = images[0].numel() * (self.log_sigma + _HALF_LOG_2PI)
        return 0.5 * squares * (-2 * self.log_sigma).exp() + constant

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`): z by address, then the decoder's mean, in [0, 1].

        Raises:
            ValueError: labels are given to an unconditional model, or missing for a conditional one.
            DeadlinePassed: the deadline passed before the decoder ran.
        """
        z = self.draw_latents(noise, draw.truncation)
        deadline.check()
        return self.decode(z, labels)

    def _one_hot(self, labels: Tensor | None, rows: int, like: Tensor) -> Tensor:
        """Encode labels as (B, classes) of the given tensor's type; (B, 0) when unconditional."""
        if (labels is None) != (self.config.classes == 0):
            expected = "one label for each row" if self.config.classes else "no labels"
            raise ValueError(f"a model of {self.config.classes} classes takes {expected}")
        if labels is None:
            return like.new_zeros(rows, 0)
        return nn.functional.one_hot(labels, self.config.classes).to(like.dtype)


class ConditionalVae(Autoencoder):
    """An autoencoder conditional on the class, so that z encodes only the variation within it."""

    conditional = True


class Vae(Autoencoder):
    """An autoencoder without classes; its prior is a mixture."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(config)
        self.prior = MixturePrior(config.components, config.latent_dim)

    def divergence(self, mu: Tensor, logvar: Tensor, epsilon: Tensor) -> Tensor:
        """Estimate the divergence with the drawn z: log q(z|x) - log p(z)."""
        z = mu + (0.5 * logvar).exp() * epsilon
        log_q = (-0.5 * epsilon**2 - 0.5 * logvar - _HALF_LOG_2PI).sum(dim=1)  # (B, latent_dim) -> (B,)
        return log_q - self.prior.log_density(z)

    def draw_latents(self, noise: Noise, truncation: float | None) -> Tensor:
        """Draw a component on the stream LABEL, otherwise unused without classes, and z within it."""
        epsilon = noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=truncation)
        uniforms = noise.addresses.uniforms(Stream.LABEL, 1)[:, 0]  # (B, 1) -> (B,) float64, equal on every machine
        component = torch.from_numpy((uniforms * self.config.components).astype("int64"))
        return self.prior.place(epsilon, component.to(epsilon.device))


def _build_encoder(config: VaeConfig) -> nn.Sequential:
    narrow, wide = config.encoder_features, 2 * config.encoder_features
    layers: list[nn.Module] = [nn.Conv2d(config.channels + config.classes, narrow, 3, padding=1), nn.SiLU()]
    for stage in range(config.stages):  # each halves height and width
        layers += [nn.Conv2d(wide if stage else narrow, wide, 3, stride=2, padding=1), nn.SiLU()]
    flat = math.prod(config.small_shape(narrow))
    dense = _connect(flat, *([config.hidden] if config.hidden else []), 2 * config.latent_dim)
    return nn.Sequential(*layers, nn.Flatten(), dense)


def _connect(*sizes: int) -> nn.Module:
    """Chain dense layers of the given sizes, with SiLU between them."""
    first, *others = (nn.Linear(above, below) for above, below in pairwise(sizes))
    return nn.Sequential(first, *(part for layer in others for part in (nn.SiLU(), layer))) if others else first


def _build_decoder(config: VaeConfig) -> nn.Sequential:
    narrow, wide = config.decoder_features, 2 * config.decoder_features
    layers: list[nn.Module] = []
    for stage in reversed(range(config.stages)):  # each doubles height and width; the last has narrow maps
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(wide, wide if stage else narrow, 3, padding=1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(narrow, config.channels, 3, padding=1))
