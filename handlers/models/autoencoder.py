"""Autoencoders: an encoder that compresses an image into a code, and a decoder that restores it.

Nothing shapes the distribution of the codes, so a sample depends on which one is assumed: with `prior_fit` 0, z is of
N(0, I), which mostly decodes to nothing known; with 1, of the normal distribution fitted to the codes of the training
rows; between, mean and Cholesky factor are mixed linearly. A denoiser's code is as long as its image, and it does not
sample. No layer mixes the rows of a batch.

A linear autoencoder with tied weights spans the principal subspace: its smallest reconstruction error is the sum of the
discarded eigenvalues of the pixels' covariance.

Sources: Baldi and Hornik, "Neural networks and principal component analysis", 1989; Hinton and Salakhutdinov, "Reducing
the dimensionality of data with neural networks", 2006; Vincent et al., "Extracting and composing robust features with
denoising autoencoders", 2008.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = [
    "Autoencoder", "ConvAutoencoder", "ConvDenoiser", "DenseAutoencoder", "LinearAutoencoder", "NetworkAutoencoder",
    "SamplingAutoencoder",
]  # fmt: skip

_SIZES = ("height", "width", "channels")


class Autoencoder(nn.Module):
    """The base of all autoencoders."""

    name: ClassVar[str]
    """Of the family, for messages."""

    own_keys: ClassVar[tuple[str, ...]] = ()
    """Of the configuration, besides the sizes of an image: whole numbers."""

    list_keys: ClassVar[tuple[str, ...]] = ()
    """Of the configuration: lists of whole numbers."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        """Create it without layers; image_shape is (C, H, W)."""
        super().__init__()
        self.image_shape, self.latent_dim = image_shape, latent_dim

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Check a card's configuration.

        Raises:
            ValueError: keys are unknown, missing or out of range; the message names every one.
        """
        known = (*_SIZES, *cls.own_keys, *cls.list_keys)
        if wrong := sorted(set(config) ^ set(known)):
            raise ValueError(f"{cls.name} configuration has unknown or missing keys {wrong}; it takes {sorted(known)}")
        problems = [f"{key} is {config[key]!r}, must be a whole number of 1 or more"
                    for key in (*_SIZES, *cls.own_keys) if not _is_size(config[key])]  # fmt: skip
        for key in cls.list_keys:
            widths = config[key]
            if not isinstance(widths, list | tuple) or not all(map(_is_size, widths)):
                problems.append(f"{key} is {widths!r}, must be a list of whole numbers of 1 or more")
        if problems := problems or cls.misfits(config):
            raise ValueError(f"{cls.name} configuration: {'; '.join(problems)}")
        return dict(config)

    @classmethod
    def misfits(cls, config: Mapping[str, Any]) -> list[str]:
        """Name what is wrong among sizes that are all whole numbers."""
        return []

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        raise NotImplementedError

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        """Compute the code of each image, (B, latent_dim), of (B, C, H, W) in [0, 1]; a code has no spread."""
        raise NotImplementedError

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the image of each code, (B, C, H, W) in [0, 1]."""
        raise NotImplementedError


class SamplingAutoencoder(Autoencoder):
    """An autoencoder with a prior of its codes, from which it samples."""

    prior_mean: Tensor
    prior_root: Tensor

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        """Create the prior, N(0, I) until it is fitted; image_shape is (C, H, W)."""
        super().__init__(image_shape, latent_dim)
        self.register_buffer("prior_mean", torch.zeros(latent_dim))
        self.register_buffer("prior_root", torch.eye(latent_dim))

    @torch.no_grad()
    def fit_prior(self, codes: Tensor) -> None:
        """Fit the prior to codes of training rows, (N, latent_dim): mean, and Cholesky factor of the covariance."""
        codes = codes.double()
        covariance = torch.cov(codes.T).reshape(self.latent_dim, self.latent_dim)
        floor = 1e-6 * covariance.diagonal().mean().clamp(min=1e-6)  # of codes that never vary
        self.prior_mean.copy_(codes.mean(dim=0))
        self.prior_root.copy_(torch.linalg.cholesky(covariance + floor * torch.eye(self.latent_dim)))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`): a code by address, decoded."""
        epsilon = noise.normal(Stream.LATENT, (self.latent_dim,), truncation=draw.truncation)
        share = 1.0 if draw.prior_fit is None else draw.prior_fit
        root = share * self.prior_root + (1 - share) * torch.eye(self.latent_dim, device=epsilon.device)
        deadline.check()
        return self.decode(share * self.prior_mean + nn.functional.linear(epsilon, root.to(epsilon.dtype)), None)


class LinearAutoencoder(SamplingAutoencoder):
    """One linear hidden layer with tied weights: z = W (x - m), x' = m + Wᵀ z, clipped to [0, 1]."""

    name = "linear-autoencoder"
    own_keys = ("latent_dim",)
    mean: Tensor
    components: Tensor

    @classmethod
    def misfits(cls, config: Mapping[str, Any]) -> list[str]:
        """Name a code that is longer than its image: there are as many components as pixels."""
        latent_dim, pixels = config["latent_dim"], math.prod(config[key] for key in _SIZES)
        return [f"latent_dim is {latent_dim}, must be at most the {pixels} pixels"] if latent_dim > pixels else []

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        read = cls.read(config)
        shape = (read["channels"], read["height"], read["width"])
        module = cls(shape, read["latent_dim"])
        pixels = math.prod(shape)
        module.register_buffer("mean", torch.zeros(pixels))
        module.register_buffer("components", torch.eye(read["latent_dim"], pixels))
        return module

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the weights to the principal components of images, (N, C, H, W), by their covariance in float64."""
        rows = images.flatten(1).double()
        mean = rows.mean(dim=0)
        _, vectors = torch.linalg.eigh(torch.cov((rows - mean).T, correction=0))  # eigenvalues ascending
        components = vectors.flip(1)[:, : self.latent_dim].T  # (pixels, pixels) -> (latent_dim, pixels)
        # The sign of an eigenvector is arbitrary: its largest entry is made positive.
        signs = components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.components.copy_(components * signs)

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        """Project images onto the components."""
        return nn.functional.linear(images.flatten(1) - self.mean, self.components), None

    def reconstruct(self, z: Tensor) -> Tensor:
        """Compute m + Wᵀ z, (B, pixels), not clipped."""
        return self.mean + nn.functional.linear(z, self.components.T)

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the image of each code, clipped to [0, 1]."""
        return self.reconstruct(z).clamp(0, 1).reshape(-1, *self.image_shape)  # (B, pixels) -> (B, C, H, W)


class NetworkAutoencoder(Autoencoder):
    """An autoencoder whose decoder ends in a sigmoid."""

    encoder: nn.Module
    decoder: nn.Module

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        """Run the encoder."""
        return self.encoder(images), None

    def logits(self, z: Tensor) -> Tensor:
        """Compute the log odds of every pixel, (B, C, H, W)."""
        logits: Tensor = self.decoder(z)
        return logits

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Run the decoder."""
        return torch.sigmoid(self.logits(z))


class DenseAutoencoder(NetworkAutoencoder, SamplingAutoencoder):
    """Dense layers, with the widths of `hidden` between image and code, and in reverse; none is one hidden layer."""

    name = "autoencoder"
    own_keys = ("latent_dim",)
    list_keys = ("hidden",)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        read = cls.read(config)
        shape = (read["channels"], read["height"], read["width"])
        module = cls(shape, read["latent_dim"])
        sizes = (math.prod(shape), *read["hidden"], read["latent_dim"])
        module.encoder = nn.Sequential(nn.Flatten(), *_dense(*sizes))
        module.decoder = nn.Sequential(*_dense(*reversed(sizes)), nn.Unflatten(1, shape))
        return module


class ConvDenoiser(NetworkAutoencoder):
    """Two convolutions that halve height and width, to a code of `code_channels` maps, and the same in reverse."""

    name = "conv-denoiser"
    own_keys = ("features", "code_channels")

    @classmethod
    def misfits(cls, config: Mapping[str, Any]) -> list[str]:
        """Name the sides that cannot be halved twice."""
        sides = [(key, config[key]) for key in ("height", "width")]
        return [f"{key} is {side}, must be divisible by 4" for key, side in sides if side % 4]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        read = cls.read(config)
        channels, features, code = read["channels"], read["features"], read["code_channels"]
        maps = (code, read["height"] // 4, read["width"] // 4)
        module = cls((channels, read["height"], read["width"]), math.prod(maps))
        wide = 2 * features
        module.encoder = nn.Sequential(
            nn.Conv2d(channels, features, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(features, wide, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(wide, wide, 3, padding=1), nn.SiLU(),
            nn.Conv2d(wide, code, 1), nn.Flatten(),
        )  # fmt: skip
        module.decoder = nn.Sequential(
            nn.Unflatten(1, maps), nn.Conv2d(code, wide, 3, padding=1), nn.SiLU(),
            # Upsampling and then convolving leaves no checkerboard, as transposed convolutions do.
            nn.Upsample(scale_factor=2), nn.Conv2d(wide, wide, 3, padding=1), nn.SiLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(wide, features, 3, padding=1), nn.SiLU(),
            nn.Conv2d(features, channels, 3, padding=1),
        )  # fmt: skip
        return module


class ConvAutoencoder(ConvDenoiser, SamplingAutoencoder):
    """The same network, with a prior of its codes."""

    name = "conv-autoencoder"


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 1


def _dense(*sizes: int) -> list[nn.Module]:
    """Chain dense layers of the given sizes, with SiLU between them."""
    first, *others = (nn.Linear(above, below) for above, below in pairwise(sizes))
    return [first, *(part for layer in others for part in (nn.SiLU(), layer))]
