"""What a model family is to a worker: the seam every architecture enters through.

A family is a torch module built from its configuration. It gets noise by address and labels by row, never a seed and
never a global generator, and gives float32 images in its own value range. One-shot samplers read the noise once;
many-step samplers read `noise.normal(..., step=k)` and call `deadline.check()` between steps; one that also tells its
steps apart can be cut between them, and gone on with elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.address import Addresses, Stream

__all__ = [
    "Classifier", "Deadline", "DeadlinePassed", "Draw", "Noise", "Sampler", "SteppedSampler", "Transformer",
    "WrongOutputError", "sample_in_steps", "take_steps",
]  # fmt: skip


class WrongOutputError(Exception):
    """A family gave something other than one row for each row it got. Mend the family."""


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
class SteppedSampler(Sampler, Protocol):
    """A sampler that can be cut between two steps: its `sample` is `sample_in_steps`.

    A draw that was cut goes on from its state alone, in another batch and perhaps another process, so nothing else may
    be kept between steps. What comes to `advance` and `finish` is a float32, row-major copy of the state, whatever was
    given back; a family whose network runs in another precision casts it to `noise.dtype`.
    """

    def steps(self, draw: Draw) -> int:
        """How many steps a draw takes, 1 or more; without parameters, too."""
        ...

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """The state before step 0.

        Returns:
            (B, ...) floating, at most float32; of one shape a row, whatever the draw and the step.
        """
        ...

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Take one step.

        Args:
            state: (B, ...) float32, before the step.
            step: 0 to steps - 1; its noise is `noise.normal(Stream.STEP, ..., step=step)`.
            noise: B addresses.
            labels: (B,) int64, or None for an unconditional model.
            draw: parameters, the same at every step.

        Returns:
            The state after the step, as `begin` gives it.
        """
        ...

    def finish(self, state: Tensor) -> Tensor:
        """Turn the state after the last step into images, as `Sampler.sample` gives them."""
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


@runtime_checkable
class Transformer(Protocol):
    """A family with the operation TRANSFORM."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module, as in `Sampler`."""
        ...

    def transform(self, images: Tensor, table: NDArray[np.float32], addresses: Addresses) -> Tensor:
        """Manipulate each image; its bytes may depend on nothing but its own row.

        Args:
            images: (B, H, W, C) uint8, of any shape.
            table: (B, columns) float32, on the host: what is done to each; see `fount.transform_columns`.
            addresses: B of them, where noise is read.

        Returns:
            (B, H, W, C) uint8.
        """
        ...


def sample_in_steps(
    sampler: SteppedSampler, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline
) -> Tensor:
    """Draw from begin to finish: the `sample` of a `SteppedSampler`.

    Raises:
        DeadlinePassed: noticed between two steps.
        WrongOutputError: the state is not what `SteppedSampler` says.
    """
    steps = range(sampler.steps(draw))
    return sampler.finish(take_steps(sampler, None, steps, noise, labels, draw, deadline))


def take_steps(
    sampler: SteppedSampler,
    state: Tensor | None,
    steps: range,
    noise: Noise,
    labels: Tensor | None,
    draw: Draw,
    deadline: Deadline,
) -> Tensor:
    """Take some steps of a draw.

    Args:
        sampler: whose.
        state: (B, ...) before the first of them; None begins the draw.
        steps: which.
        noise: B addresses.
        labels: (B,) int64, or None for an unconditional model.
        draw: parameters.
        deadline: checked before every step.

    Returns:
        (B, ...) float32, row-major: the state after them.

    Raises:
        DeadlinePassed: noticed between two steps.
        WrongOutputError: the state is not what `SteppedSampler` says.
    """
    state = _settle(sampler.begin(noise, labels, draw) if state is None else state)
    if state.shape[:1] != (len(noise.addresses),):
        raise WrongOutputError(f"the state has shape {tuple(state.shape)} for {len(noise.addresses)} rows of noise")
    for step in steps:
        deadline.check()
        after = _settle(sampler.advance(state, step, noise, labels, draw))
        if after.shape != state.shape:
            shapes = f"{tuple(state.shape)} to {tuple(after.shape)}"
            raise WrongOutputError(f"the state went from shape {shapes} at step {step}; keep its shape")
        state = after
    return state


def _settle(state: Tensor) -> Tensor:
    """Copy a state into what it would be had it crossed to a gateway and back, so that a cut never shows in values.

    Kernels round by how memory lies, so strides are made anew, even where `contiguous` would leave them.
    """
    if state.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise WrongOutputError(f"the state is {state.dtype}; give float32, or less")
    return torch.empty(state.shape, dtype=torch.float32, device=state.device).copy_(state)
