"""The interface of a model family: the protocols that every architecture implements, and the values they receive.

A family is a torch module built from its configuration. It gets noise by address and labels by row, never a seed or a
global generator, and returns float32 samples in its own value range. One-step samplers read the noise once; many-step
samplers read `noise.normal(..., step=k)` and call `deadline.check()` between steps. Those of `handlers.stepping` expose
their steps, so that a draw can be preempted between two of them and resumed elsewhere.

"Images" are rows of the model's own kind: (B, C, H, W) for a model of images, (B, length) for one of vectors. No row of
a batch may depend on another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.address import Addresses, Stream

__all__ = [
    "Classifier", "ConditionedSampler", "Deadline", "DeadlinePassed", "Decoder", "Draw", "Encoder", "Given", "Noise",
    "Sampler", "Scorer", "Transformer", "Translator", "WrongOutputError",
]  # fmt: skip


class WrongOutputError(Exception):
    """A family returned something other than one row for each input row. Correct the family."""


class DeadlinePassed(Exception):
    """The deadline of a call passed, or the call was cancelled. Request with more time, or fewer samples."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The time after which the result is no longer needed.

    Attributes:
        unix_s: seconds since 1970; None for no deadline.
        is_cancelled: returns whether the call was cancelled, which ends it like a deadline; None when it cannot be.
    """

    unix_s: float | None = None
    is_cancelled: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raise if the deadline has passed or the call was cancelled.

        Raises:
            DeadlinePassed: it has, or was.
        """
        if self.is_cancelled is not None and self.is_cancelled():
            raise DeadlinePassed("the call was cancelled")
        if self.unix_s is not None and time.time() >= self.unix_s:
            raise DeadlinePassed(f"the deadline passed {time.time() - self.unix_s:.3f} s ago")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of a batch, read by address.

    Attributes:
        addresses: one for each row.
        device: of the tensors returned.
        dtype: of the tensors returned; noise is drawn in float32 and cast once.
    """

    addresses: Addresses
    device: torch.device
    dtype: torch.dtype = torch.float32

    def normal(
        self, stream: Stream, shape: tuple[int, ...], *, step: int = 0, truncation: float | None = None
    ) -> Tensor:
        """Draw standard normals of one stream.

        Returns:
            (B, *shape), N(0, 1), the same for an address in every batch.
        """
        count = int(torch.Size(shape).numel())
        z = self.addresses.normals(stream, count, step=step, truncation=truncation)
        # (B, count) -> (B, *shape)
        return torch.from_numpy(z).reshape(len(self.addresses), *shape).to(self.device, self.dtype)

    def uniform(self, stream: Stream, count: int, *, step: int = 0) -> Tensor:
        """Draw uniforms of one stream, for discrete draws.

        Returns:
            (B, count) float64 on the CPU, in [0, 1), the same for an address in every batch and on every machine.
        """
        return torch.from_numpy(self.addresses.uniforms(stream, count, step=step))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The sampling parameters of a request, those of fount.v1.Parameters; None when unset."""

    truncation: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    eta: float | None = None
    importance_samples: int | None = None
    prior_fit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """What samples are conditional on, besides a label.

    Attributes:
        values: (B, ...) floating: the given images, vectors or prefixes.
        mask: (B, ...) floating, 1 where a value is given, else 0; None: all are.
    """

    values: Tensor
    mask: Tensor | None = None


class Family(Protocol):
    """What every architecture has."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing, or out of range; the message names it.
        """
        ...


@runtime_checkable
class Sampler(Family, Protocol):
    """A family with the operation SAMPLE."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row.

        Args:
            noise: B addresses.
            labels: (B,) int64, or None for an unconditional model.
            draw: parameters.
            deadline: to be checked between steps.

        Returns:
            (B, C, H, W) floating, within the card's value range.
        """
        ...


@runtime_checkable
class ConditionedSampler(Family, Protocol):
    """A family whose operation SAMPLE can be given values in addition to a label, and draws in one step."""

    def sample_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row of `given`, as `Sampler.sample` does."""
        ...


@runtime_checkable
class Encoder(Family, Protocol):
    """A family with the operation ENCODE."""

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Compute the distribution of the latent of each image.

        Args:
            images: (B, C, H, W) floating in the card's value range.
            labels: (B,) int64, or None for an unconditional model.

        Returns:
            The mean, (B, latent_dim), and the log of the variance, (B, latent_dim); None where the latent is a point.
        """
        ...


@runtime_checkable
class Decoder(Family, Protocol):
    """A family with the operation DECODE."""

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the image of each latent.

        Args:
            z: (B, latent_dim) floating.
            labels: (B,) int64, or None for an unconditional model.

        Returns:
            (B, C, H, W) floating, within the card's value range.
        """
        ...


@runtime_checkable
class Scorer(Family, Protocol):
    """A family with the operation SCORE."""

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute log-likelihoods, or bounds or estimates of them.

        Args:
            images: (B, C, H, W) floating in the card's value range.
            labels: (B,) int64 for log p(x|y); None for log p(x), also of a conditional model.
            noise: B addresses, for scores that draw.
            draw: parameters, for instance the number of importance samples.
            deadline: to be checked between parts of the work.

        Returns:
            (B, columns) floating, the columns that the card names, in its order.
        """
        ...


@runtime_checkable
class Translator(Family, Protocol):
    """A family with the operation TRANSLATE."""

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Map each given image to one of another domain.

        Returns:
            (B, C, H, W) floating, within the card's value range.
        """
        ...


@runtime_checkable
class Classifier(Family, Protocol):
    """A family with the operations CLASSIFY and EMBED."""

    def classify(self, images: Tensor) -> Tensor:
        """Compute class probabilities.

        Args:
            images: (B, C, H, W) floating in the card's value range.

        Returns:
            (B, classes) floating, rows summing to 1.
        """
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Compute feature vectors, the input of the classifier's last layer.

        Returns:
            (B, features) floating.
        """
        ...


@runtime_checkable
class Transformer(Family, Protocol):
    """A family with the operation TRANSFORM."""

    def transform(self, images: Tensor, table: NDArray[np.float32], addresses: Addresses) -> Tensor:
        """Transform each image; its bytes may depend on nothing but its own row.

        Args:
            images: (B, H, W, C) uint8, of any shape.
            table: (B, columns) float32, on the host: the transforms of each image; see `fount.transform_columns`.
            addresses: B, at which noise is read.

        Returns:
            (B, H, W, C) uint8.
        """
        ...
