"""Variational autoencoders with p(z) = N(0, I), for nearly black-and-white images without classes.

x is an image whose pixels are 0 or 1, z the latent, q(z|x) = N(mu, diag(exp(logvar))), and p(x|z) Bernoulli in each
pixel. Grey pixels are binarised at 0.5 where a likelihood is computed, and are read as they are where an image is
encoded. A sample is the decoder's mean, without pixel noise. log p(x) is bounded from below: by the evidence lower
bound (ELBO), and by the importance-weighted bound of k latents, which equals the ELBO in expectation for k = 1 and
rises with k. No layer mixes the rows of a batch.

Sources: Kingma and Welling, "Auto-encoding variational Bayes", 2014; Burda, Grosse, Salakhutdinov, "Importance weighted
autoencoders", 2016, theorem 1; Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008
(binarised MNIST).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["LogWeight", "StandardVae", "StandardVaeConfig", "bounds"]

_LOG_2PI = math.log(2 * math.pi)
_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class StandardVaeConfig:
    """The shape of a variational autoencoder of dense layers.

    Attributes:
        height: pixels.
        width: pixels.
        channels: of the images.
        latent_dim: length of z.
        hidden: widths of the encoder's hidden layers, from the image to z; the decoder has them in reverse.
    """

    height: int
    width: int
    channels: int
    latent_dim: int
    hidden: tuple[int, ...]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = {field.name for field in fields(cls)}
        if wrong := sorted(set(config) ^ known):
            raise ValueError(
                f"standard-vae configuration has unknown or missing keys {wrong}; it takes {sorted(known)}"
            )
        hidden = config["hidden"]
        if not isinstance(hidden, Sequence) or isinstance(hidden, str) or not hidden:
            raise ValueError(f"standard-vae configuration: hidden is {hidden!r}, must be a list of widths")
        sizes = [(key, config[key]) for key in sorted(known - {"hidden"})] + [("hidden", width) for width in hidden]
        for key, value in sizes:
            if type(value) is not int or value < 1:
                raise ValueError(f"standard-vae configuration: {key} has {value!r}, must be whole numbers of 1 or more")
        return cls(**{**config, "hidden": tuple(hidden)})

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return self.height * self.width * self.channels


@dataclass(frozen=True, kw_only=True)
class LogWeight:
    """The three parts of log p(x, z) - log q(z|x) at a z of q(z|x), in nats, (B,) float64 each.

    Attributes:
        likelihood: log p(x|z).
        prior: log p(z).
        posterior: log q(z|x).
    """

    likelihood: Tensor
    prior: Tensor
    posterior: Tensor

    @property
    def value(self) -> Tensor:
        """Log p(x, z) - log q(z|x)."""
        return self.likelihood + self.prior - self.posterior


def bounds(log_weights: Sequence[Tensor]) -> Tensor:
    """Compute the evidence lower bound and the importance-weighted bound.

    Args:
        log_weights: k of (B,) float64, each at an independent z of q(z|x).

    Returns:
        (B, 2) float64 nats: the mean of the log weights, and the log of the mean weight.

    Source: Burda, Grosse and Salakhutdinov 2016, equation 8.
    """
    stacked = torch.stack(list(log_weights), dim=1)  # k of (B,) -> (B, k)
    weighted = torch.logsumexp(stacked, dim=1) - math.log(stacked.shape[1])
    return torch.stack([stacked.mean(dim=1), weighted], dim=1)


def log_normal(values: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Compute log N(values; mean, exp(logvar)) summed over the columns of (B, d); (B,) float64 nats."""
    squares = (values - mean).double() ** 2 * (-logvar.double()).exp()
    return -0.5 * (squares + logvar.double() + _LOG_2PI).sum(dim=1)


class StandardVae(nn.Module):
    """A variational autoencoder of dense layers."""

    def __init__(self, config: StandardVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _dense(config.pixels, *config.hidden, 2 * config.latent_dim)
        self.decoder = _dense(config.latent_dim, *reversed(config.hidden), config.pixels)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(StandardVaeConfig.read(config))

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute mu and logvar of q(z|x), each (B, latent_dim), of (B, C, H, W) in [0, 1]."""
        mu, logvar = self.encoder(images.flatten(1)).chunk(2, dim=1)
        return mu, logvar

    def logits(self, z: Tensor) -> Tensor:
        """Compute the log odds of every pixel, (B, C, H, W), of z, (B, latent_dim)."""
        config = self.config
        # (B, pixels) -> (B, C, H, W)
        logits: Tensor = self.decoder(z).unflatten(1, (config.channels, config.height, config.width))
        return logits

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the mean of p(x|z), (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.logits(z))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`): z of N(0, I) by address, then the decoder's mean."""
        z = noise.normal(Stream.LATENT, (self.config.latent_dim,), truncation=draw.truncation)
        deadline.check()
        return self.decode(z, None)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Bound log p(x) of binarised images (see `Scorer.score`); latent j of k is drawn at step j of the address.

        Returns:
            (B, 2) float64 nats: ELBO, and importance-weighted bound.
        """
        pixels = (images >= _THRESHOLD).to(images.dtype)
        mu, logvar = self.encode(pixels, None)
        log_weights = []
        for step in range(draw.importance_samples or 1):
            deadline.check()
            epsilon = noise.normal(Stream.LATENT, (self.config.latent_dim,), step=step)
            log_weights.append(self.log_weight(pixels, mu, logvar, epsilon).value)
        return bounds(log_weights)

    def log_weight(self, pixels: Tensor, mu: Tensor, logvar: Tensor, epsilon: Tensor) -> LogWeight:
        """Compute the log weight of one latent of each image.

        Args:
            pixels: (B, C, H, W), 0 or 1.
            mu: (B, latent_dim) of q(z|x).
            logvar: (B, latent_dim).
            epsilon: (B, latent_dim), N(0, 1).
        """
        z = mu + (0.5 * logvar).exp() * epsilon
        losses = nn.functional.binary_cross_entropy_with_logits(self.logits(z), pixels, reduction="none")
        zero = torch.zeros_like(z)
        return LogWeight(
            likelihood=-losses.flatten(1).double().sum(dim=1),
            prior=log_normal(z, zero, zero),
            posterior=log_normal(z, mu, logvar),
        )


def _dense(*sizes: int) -> nn.Sequential:
    """Chain dense layers of the given sizes, with SiLU between them."""
    first, *others = (nn.Linear(above, below) for above, below in pairwise(sizes))
    return nn.Sequential(first, *(part for layer in others for part in (nn.SiLU(), layer)))
