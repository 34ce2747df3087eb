"""Gaussian mixtures of images: each class is a mixture of normals with an exact density, sampled and scored.

All components share one linear subspace of d dimensions with mean m and orthonormal rows W. Coordinates c = W(x - m)
follow the mixture of the class, p(c|y) = Σ_k π_yk N(c; μ_yk, Σ_yk); what is left of the image, in the D - d directions
outside the subspace, is normal noise of one variance s². So x is a mixture of normals of all D pixels, in other words
of probabilistic principal component analysers with a common subspace, and

    log p(x|y) = log p(c|y) - (D - d)/2 log(2π s²) - (|x - m|² - |c|²) / (2 s²)
    log p(x) = log Σ_y p(x|y) / classes
    p(y|x) = p(x|y) / Σ_y p(x|y), by Bayes' rule, since all classes are equally likely

x is continuous, with pixels in [0, 1], so a density is above 1 where it is concentrated. A sample is the mean of x at
drawn coordinates, without the noise outside the subspace, as an autoencoder's is, and its pixels are bounded by 0 and
1. Densities are computed in float64 and rounded once. No row depends on another one.

Sources: Tipping and Bishop, "Probabilistic principal component analysis", 1999; the same, "Mixtures of probabilistic
principal component analyzers", 1999; Bishop, "Pattern recognition and machine learning", 2006, section 9.3.2 (K-means
as the limit of equal covariances that vanish).
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

__all__ = ["GaussianMixture", "MixtureConfig", "log_joint_of_components"]

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """The shape of a mixture.

    Attributes:
        height: pixels.
        width: pixels.
        channels: of the images.
        dimensions: of the subspace, below height · width · channels.
        classes: 1 or more.
        components: normals of each class.
    """

    height: int
    width: int
    channels: int
    dimensions: int
    classes: int
    components: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"mixture configuration has unknown or missing keys {wrong}; it takes {known}")
        for key, value in config.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"mixture configuration: {key} is {value!r}, must be a whole number of 1 or more")
        read = cls(**config)
        if read.dimensions >= read.pixels:
            raise ValueError(
                f"mixture configuration: dimensions is {read.dimensions}, must be below the {read.pixels} values of an "
                "image"
            )
        return read

    @property
    def pixels(self) -> int:
        """Values of an image, D."""
        return self.height * self.width * self.channels


class GaussianMixture(nn.Module):
    """One mixture of normals for each class, in a subspace that all of them share.

    Attributes:
        mean: (D,) m.
        basis: (d, D) W, with orthonormal rows.
        noise_variance: () s².
        log_weights: (classes, components) log π, normalised in each class.
        means: (classes, components, d) μ.
        factors: (classes, components, d, d) lower triangular, L with Σ = L·Lᵀ.
    """

    mean: Tensor
    basis: Tensor
    noise_variance: Tensor
    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, config: MixtureConfig) -> None:
        """Build standard normals in the subspace of the first pixels."""
        super().__init__()
        self.config = config
        classes, components, size = config.classes, config.components, config.dimensions
        self.register_buffer("mean", torch.zeros(config.pixels))
        self.register_buffer("basis", torch.eye(size, config.pixels))
        self.register_buffer("noise_variance", torch.ones(()))
        self.register_buffer("log_weights", torch.full((classes, components), -math.log(components)))
        self.register_buffer("means", torch.zeros(classes, components, size))
        self.register_buffer("factors", torch.eye(size).repeat(classes, components, 1, 1))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(MixtureConfig.read(config))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row: a component by one uniform, coordinates by normals, and their mean image.

        Args:
            noise: B addresses.
            labels: (B,) int64.
            draw: truncation bounds the standard normals that a component shifts and shapes.
            deadline: checked once, before images are computed.

        Returns:
            (B, C, H, W) in [0, 1].

        Raises:
            ValueError: labels is None.
            DeadlinePassed: the deadline passed.
        """
        if labels is None:
            raise ValueError(f"a model of {self.config.classes} classes takes one label for each row")
        uniform = noise.uniform(Stream.STEP, 1).to(labels.device)  # (B, 1)
        z = noise.normal(Stream.LATENT, (self.config.dimensions,), truncation=draw.truncation).double()
        deadline.check()
        cumulative = self.log_weights.double().exp().cumsum(dim=1)[labels]  # (B, components)
        # the last component also takes what rounding leaves of the sum
        component = (uniform * cumulative[:, -1:] >= cumulative[:, :-1]).sum(dim=1)
        factors, means = self.factors[labels, component].double(), self.means[labels, component].double()
        coordinates = means + (factors * z[:, None, :]).sum(dim=2)  # (B, d, d) · (B, 1, d) -> (B, d)
        return self.place(coordinates)

    def place(self, coordinates: Tensor) -> Tensor:
        """Compute the mean image at coordinates in the subspace, (B, d) float64; (B, C, H, W) float32 in [0, 1]."""
        flat = self.mean.double() + coordinates @ self.basis.double()  # (B, D)
        # (B, D) -> (B, C, H, W)
        images = flat.reshape(-1, self.config.channels, self.config.height, self.config.width)
        return images.clamp(0.0, 1.0).float()

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute the exact log-density of each image.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64 for log p(x|y); None for log p(x).
            noise: not read.
            draw: without parameters.
            deadline: checked once, before densities are computed.

        Returns:
            (B, 1) float64, nats, of the continuous density of all pixels.

        Raises:
            DeadlinePassed: the deadline passed.
        """
        deadline.check()
        by_class = self.log_densities(images)  # (B, classes)
        if labels is None:
            return torch.logsumexp(by_class, dim=1, keepdim=True) - math.log(self.config.classes)
        return by_class.gather(1, labels[:, None])

    def classify(self, images: Tensor) -> Tensor:
        """Compute p(y|x) by Bayes' rule, with equally likely classes.

        Args:
            images: (B, C, H, W) in [0, 1].

        Returns:
            (B, classes) float64, rows summing to 1.

        Source: Bishop 2006, equation 1.82.
        """
        return torch.softmax(self.log_densities(images), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Compute the coordinates of images in the subspace, their principal components; (B, d) float64."""
        return self._project(images)[0]

    def log_densities(self, images: Tensor) -> Tensor:
        """Compute log p(x|y) of each class; images as in `score`, the result (B, classes) float64, nats.

        Source: Tipping and Bishop 1999, "Mixtures", equations 6 and 8 with a common subspace.
        """
        coordinates, squares = self._project(images)
        inside = torch.logsumexp(
            log_joint_of_components(coordinates, self.log_weights, self.means, self.factors), dim=2
        )
        variance, outside = self.noise_variance.double(), self.config.pixels - self.config.dimensions
        rest = (squares - coordinates.square().sum(dim=1)).clamp_min(0)  # Pythagoras; rounding may go below 0
        noise = outside * (_LOG_2PI + variance.log()) + rest / variance  # (B,)
        return inside - 0.5 * noise[:, None]

    def _project(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute coordinates, (B, d), and |x - m|², (B,), in float64."""
        centred = images.flatten(1).double() - self.mean.double()  # (B, C, H, W) -> (B, D)
        return centred @ self.basis.double().T, centred.square().sum(dim=1)


def log_joint_of_components(coordinates: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Compute log π_yk + log N(c; μ_yk, L_yk·L_ykᵀ) of every component.

    Args:
        coordinates: (B, d) float64.
        log_weights: (classes, components).
        means: (classes, components, d).
        factors: (classes, components, d, d) lower triangular.

    Returns:
        (B, classes, components) float64, nats.
    """
    classes, components, size = means.shape
    lower = factors.double().flatten(0, 1)  # (classes·components, d, d)
    identity = torch.eye(size, dtype=torch.float64, device=lower.device)
    whitening = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)  # L⁻¹
    # one product for all components: (B, d) · (d, classes·components·d)
    white = (coordinates @ whitening.flatten(0, 1).T).unflatten(1, (-1, size))  # (B, classes·components, d)
    centres = (whitening * means.double().flatten(0, 1)[:, None, :]).sum(dim=2)  # (classes·components, d)
    distances = (white - centres).square().sum(dim=2)  # (B, classes·components), squared Mahalanobis
    scales = lower.diagonal(dim1=1, dim2=2).log().sum(dim=1)  # log |L|
    joint = log_weights.double().flatten() - 0.5 * (distances + size * _LOG_2PI) - scales
    by_class: Tensor = joint.unflatten(1, (classes, components))
    return by_class
