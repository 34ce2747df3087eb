"""Samplers of many steps: their protocols, and the functions that take the steps.

A state of one row each is all that passes from a step to the next, so that a draw can be preempted between two steps,
and resumed in another batch, another call or another process, with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from handlers.family import Deadline, Draw, Given, Noise, Sampler, WrongOutputError

__all__ = ["GivenStepsSampler", "ManyStepSampler", "SteppedSampler", "sample_in_steps", "take_steps"]


@runtime_checkable
class SteppedSampler(Sampler, Protocol):
    """A sampler that can be preempted between two steps: its `sample` is `sample_in_steps`.

    A preempted draw resumes from its state alone, in another batch and perhaps another process, so nothing else may be
    kept between steps. `advance` and `finish` receive a float32, row-major copy of the state, whatever was returned; a
    family whose network runs in another precision casts it to `noise.dtype`.
    """

    def steps(self, draw: Draw) -> int:
        """Return how many steps a draw takes, 1 or more; also for a draw without parameters."""
        ...

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the state before step 0.

        Returns:
            (B, ...) floating, at most float32; the shape of a row must not depend on draw or step.
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
            The state after the step, of the shape that `begin` returned.
        """
        ...

    def finish(self, state: Tensor) -> Tensor:
        """Turn the state after the last step into images, as `Sampler.sample` returns them."""
        ...


@runtime_checkable
class ManyStepSampler(SteppedSampler, Protocol):
    """A stepped sampler with so many steps that whole draws would take too long to verify it.

    Attributes:
        discrete: whether values are drawn from finitely many, so that rounding changes none, or, rarely, the rest of a
            row.
    """

    discrete: ClassVar[bool]

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return a draw with few steps, or a few steps of a draw, that run every shape of tensors that a draw runs.

        Returns:
            The parameters, also of scores, and the steps to take, ascending; the others are left out, and `advance` and
            `finish` accept that.
        """
        ...


@runtime_checkable
class GivenStepsSampler(SteppedSampler, Protocol):
    """A stepped sampler that can be given values; its state holds them, so that later steps need nothing else."""

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the state before step 0 of draws in which the given values stay as they are.

        Returns:
            (B, ...) of the shape that `begin` returns.
        """
        ...


def sample_in_steps(
    sampler: SteppedSampler, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline
) -> Tensor:
    """Take all steps of a draw: the `sample` of a `SteppedSampler`.

    Raises:
        DeadlinePassed: the deadline passed between two steps.
        WrongOutputError: the state is not what `SteppedSampler` requires.
    """
    steps = range(sampler.steps(draw))
    return sampler.finish(take_steps(sampler, None, steps, noise, labels, draw, deadline))


def take_steps(
    sampler: SteppedSampler,
    state: Tensor | None,
    steps: Sequence[int],
    noise: Noise,
    labels: Tensor | None,
    draw: Draw,
    deadline: Deadline,
) -> Tensor:
    """Take some steps of a draw.

    Args:
        sampler: the family.
        state: (B, ...) before the first of these steps; None starts the draw.
        steps: to take.
        noise: B addresses.
        labels: (B,) int64, or None for an unconditional model.
        draw: parameters.
        deadline: checked before every step.

    Returns:
        (B, ...) float32, row-major: the state after the last of these steps.

    Raises:
        DeadlinePassed: the deadline passed between two steps.
        WrongOutputError: the state is not what `SteppedSampler` requires.
    """
    state = _copy_state(sampler.begin(noise, labels, draw) if state is None else state)
    if state.shape[:1] != (len(noise.addresses),):
        raise WrongOutputError(f"the state has shape {tuple(state.shape)} for {len(noise.addresses)} rows of noise")
    for step in steps:
        deadline.check()
        after = _copy_state(sampler.advance(state, step, noise, labels, draw))
        if after.shape != state.shape:
            shapes = f"{tuple(state.shape)} to {tuple(after.shape)}"
            raise WrongOutputError(f"step {step} changed the shape of the state from {shapes}; keep its shape")
        state = after
    return state


def _copy_state(state: Tensor) -> Tensor:
    """Copy a state into the form it has after a transfer to a gateway and back, so that preemption changes no values.

    Kernels round by memory layout, so strides are rebuilt, even where `contiguous` would keep them.
    """
    if state.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise WrongOutputError(f"the state is {state.dtype}; return float32 or a shorter float type")
    return torch.empty(state.shape, dtype=torch.float32, device=state.device).copy_(state)
