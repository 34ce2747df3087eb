"""What a model family is to a worker: the seam every architecture enters through.

A family is a torch module built from its configuration. It gets noise by address and labels by row, never a seed and
never a global generator, and gives float32 images in its own value range. One-shot samplers read the noise once;
many-step samplers read `noise.normal(..., step=k)` and call `deadline.check()` between steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from fount.address import Addresses, Stream

__all__ = ["Classifier", "Deadline", "DeadlinePassed", "Draw", "Noise", "Sampler"]


class DeadlinePassed(Exception):
    """The answer is no longer wanted. Ask with more time, or for fewer samples."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When an answer stops being wanted.

    Attributes:
        unix_s: seconds since 1970; None is never.
    """

    unix_s: float | None = None

    def check(self) -> None:
        """Stop here if it is too late.

        Raises:
            DeadlinePassed: it is.
        """
        if self.unix_s is not None and time.time() >= self.unix_s:
            raise DeadlinePassed(f"the deadline passed {time.time() - self.unix_s:.3f} s ago")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of a batch, read by address.

    Attributes:
        addresses: one a row.
        device: where tensors are wanted.
        dtype: the floating type they are wanted in; drawn in float32 and cast once.
    """

    addresses: Addresses
    device: torch.device
    dtype: torch.dtype = torch.float32

    def normal(
        self, stream: Stream, shape: tuple[int, ...], *, step: int = 0, truncation: float | None = None
    ) -> Tensor:
        """Standard normals of one stream.

        Returns:
            (B, *shape), N(0, 1), the same for an address whatever its batch.
        """
        count = int(torch.Size(shape).numel())
        z = self.addresses.normals(stream, count, step=step, truncation=truncation)
        # (B, count) -> (B, *shape)
        return torch.from_numpy(z).reshape(len(self.addresses), *shape).to(self.device, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How samples are to be drawn: the parameters of a request, those unset being None.

    Attributes are those of fount.v1.Parameters.
    """

    truncation: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    steps: int | None = None


@runtime_checkable
class Sampler(Protocol):
    """A family with the operation SAMPLE."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing, or out of range; the message names it.
        """
        ...

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image a row.

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
class Classifier(Protocol):
    """A family with the operations CLASSIFY and EMBED."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights, as in `Sampler`."""
        ...

    def classify(self, images: Tensor) -> Tensor:
        """Class probabilities.

        Args:
            images: (B, C, H, W) floating in the card's value range.

        Returns:
            (B, classes) floating, rows summing to 1.
        """
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Feature vectors, those the classifier's last layer reads.

        Returns:
            (B, features) floating.
        """
        ...
