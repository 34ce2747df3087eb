"""The network: one loaded family on one device in one precision.

The rows of one batch enter; the family's results leave, checked for shape and converted to float32 in row-major NHWC
order (transformed images stay uint8). Batch normalisation is folded into weights, and weights are cast and laid out in
memory, once; unless settings say otherwise, fp32 runs in NCHW and bf16 with channels last.

A many-step draw that would occupy a worker too long is preempted between steps: its call returns the sampler's state,
and another call resumes from there, in another batch and perhaps another worker. `StepPlan` has the steps of one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fount.address import Addresses
from handlers.cards.card import Card, OperationName
from handlers.execution.folding import fold_norms
from handlers.execution.pixels import Float32s, Uint8s, Values
from handlers.execution.probes import make_probe_rows
from handlers.execution.rows import GivenRows, ImageRows, ManipulationRows, Rows, SampleRows
from handlers.family import Deadline, Draw, Family, Given, Noise, Sampler, Transformer, WrongOutputError
from handlers.settings import Settings
from handlers.stepping import ManyStepSampler, SteppedSampler, take_steps

__all__ = ["FamilyBuilder", "Network", "Operation", "StepPlan", "WrongOutputError", "build_network"]

Operation = OperationName
FamilyBuilder = Callable[[str, Mapping[str, Any]], Family]

_NEVER = Deadline()
_DEFAULT_DRAW = Draw()
_FOLD_ROWS = 8  # compared before and after folding


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The steps that one call takes of its draws, which are all at the same step.

    Attributes:
        total: steps of the whole draw.
        first: the step the draws are at; above 0, they resume from states.
        limit: of steps in this call; None for no limit.
        state_shape: of one row's state.
        usual_total: steps of a draw without parameters, by which batches were timed.
    """

    total: int
    first: int
    limit: int | None
    state_shape: tuple[int, ...]
    usual_total: int

    @property
    def stop(self) -> int:
        """The step after the last one taken; below `total`, the draw is preempted there."""
        return self.total if self.limit is None else min(self.total, self.first + self.limit)

    @property
    def share(self) -> float:
        """The number of steps of this call relative to a draw without parameters."""
        return max(1, self.stop - self.first) / max(1, self.usual_total)

    @property
    def state_bytes(self) -> int:
        """Size of one row's states in a call that preempts or resumes draws; 0 in any other."""
        return 4 * math.prod(self.state_shape) if self.first or self.stop < self.total else 0


@dataclass(frozen=True, kw_only=True)
class Network:
    """A loaded model, ready to run.

    Attributes:
        card: the model's card.
        module: the family's module, in evaluation mode, on the device and in the precision it runs in.
        device: where it runs.
        dtype: the floating type of its weights and activations.
        layout: memory layout of images.
        compiled: whether each size is compiled on its first run, which takes seconds.
        folded: names of the batch normalisations that are folded into other layers.
    """

    card: Card
    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format = torch.contiguous_format
    compiled: bool = False
    folded: tuple[str, ...] = ()

    @torch.inference_mode()
    def run(
        self,
        operation: Operation,
        rows: Rows,
        draw: Draw = _DEFAULT_DRAW,
        deadline: Deadline = _NEVER,
        steps: StepPlan | None = None,
    ) -> Values:
        """Run one batch of exactly these rows.

        Args:
            operation: of the card; rows are of its kind.
            rows: as many as an executable size.
            draw: the parameters of samples.
            deadline: checked between steps.
            steps: of a preemptible sampler, from `plan_steps`; None takes all.

        Returns:
            (B, H, W, C) float32, of vectors (B, length), for SAMPLE, DECODE and TRANSLATE; (B, classes) for CLASSIFY,
            (B, features) for EMBED; (B, 2, latent_dim), mean and standard deviation, for ENCODE; (B, columns) for
            SCORE; (B, H, W, C) uint8 for TRANSFORM; (B, ...), the states, for preempted draws; row-major.

        Raises:
            WrongOutputError: the family returned another shape.
            DeadlinePassed: the deadline passed between two steps.
        """
        if isinstance(rows, SampleRows) or self._draws_given(operation):
            return self._sample(rows, draw, deadline, steps)
        if isinstance(rows, ManipulationRows):
            return self._transform(rows)
        if isinstance(rows, GivenRows):
            return self._work_on_given(operation, rows, draw, deadline)
        return self._read(operation, rows)

    def plan_steps(self, operation: Operation, draw: Draw, first: int, limit: int | None) -> StepPlan | None:
        """Plan the steps of draws at step `first`, at most `limit`; None for an operation that cannot be preempted."""
        if self._stepped is None or not (operation == "SAMPLE" or self._draws_given(operation)):
            return None
        return StepPlan(
            total=self._stepped.steps(draw),
            first=first,
            limit=limit,
            state_shape=self._state_shape,
            usual_total=self._stepped.steps(_DEFAULT_DRAW),
        )

    def probe(self, operation: Operation, rows: Rows) -> Values:
        """Run one batch as `run` does; of a sampler of many steps, only those of its probe."""
        if self._many_step is None:
            return self.run(operation, rows)
        draw, steps = self._many_step.probe()
        if not isinstance(rows, SampleRows) and not self._draws_given(operation):
            return self.run(operation, rows, draw)
        with torch.inference_mode():
            return self._images(self._many_step.finish(self._take_steps(rows, steps, draw, _NEVER)), len(rows))

    @property
    def probe_share(self) -> float:
        """The steps of a draw without parameters, relative to those of a probe."""
        if self._many_step is None:
            return 1.0
        return self._many_step.steps(_DEFAULT_DRAW) / len(self._many_step.probe()[1])

    @property
    def is_many_step(self) -> bool:
        """Whether its draws are so long that it is verified by a few of their steps."""
        return self._many_step is not None

    @property
    def is_discrete(self) -> bool:
        """Whether its draws are of finitely many values."""
        return self._many_step is not None and self._many_step.discrete

    @property
    def is_conditioned(self) -> bool:
        """Whether SAMPLE can be given values."""
        return self._starts_given or callable(getattr(self.module, "sample_given", None))

    def _draws_given(self, operation: Operation) -> bool:
        """Whether an operation on given rows is a draw that takes steps."""
        return operation in ("SAMPLE", "TRANSLATE") and self._starts_given

    @cached_property
    def _many_step(self) -> ManyStepSampler | None:
        return self.module if isinstance(self.module, ManyStepSampler) else None

    @property
    def _starts_given(self) -> bool:
        return self._stepped is not None and callable(getattr(self.module, "begin_given", None))

    @cached_property
    def _stepped(self) -> SteppedSampler | None:
        return self.module if isinstance(self.module, SteppedSampler) else None

    @cached_property
    def _sampler(self) -> Sampler:
        if not isinstance(self.module, Sampler):  # which takes long for a protocol
            raise WrongOutputError("the family cannot sample")
        return self.module

    @cached_property
    def _state_shape(self) -> tuple[int, ...]:
        """The shape of one row's state, found by starting a draw: a worker may resume draws before it started any."""
        assert self._stepped is not None
        operation: Operation = "SAMPLE" if "SAMPLE" in self.card.operations else "TRANSLATE"
        rows = make_probe_rows(self.card, operation, Addresses.of_range(0, 0, 1))
        with torch.inference_mode():
            return tuple(self._take_steps(rows, (), _DEFAULT_DRAW, _NEVER).shape[1:])

    def _sample(self, rows: Rows, draw: Draw, deadline: Deadline, steps: StepPlan | None) -> Float32s:
        if self._stepped is None:
            assert isinstance(rows, SampleRows)
            noise, labels = self._conditions(rows)
            return self._images(self._sampler.sample(noise, labels, draw, deadline), len(rows))
        # Never through the family's own `sample`, so that preemption changes no byte.
        taken = range(steps.first, steps.stop) if steps else range(self._stepped.steps(draw))
        state = self._take_steps(rows, taken, draw, deadline)
        if steps is None or steps.stop == steps.total:
            return self._images(self._stepped.finish(state), len(rows))
        _check_shape(state, (len(rows), *self._state_shape))
        return _to_float32(state)

    def _take_steps(self, rows: Rows, steps: Sequence[int], draw: Draw, deadline: Deadline) -> Tensor:
        """Take steps of new draws, of draws that resume, or of draws that are given values."""
        assert self._stepped is not None
        noise, labels = self._conditions(rows)
        state = None
        if isinstance(rows, GivenRows):
            state = self._method("begin_given")(self._given(rows), noise, labels, draw)
        elif isinstance(rows, SampleRows) and rows.states is not None:
            state = torch.from_numpy(rows.states).to(self.device)
        return take_steps(self._stepped, state, steps, noise, labels, draw, deadline)

    def _conditions(self, rows: Rows) -> tuple[Noise, Tensor | None]:
        """Return the noise and the labels of rows that have addresses."""
        assert isinstance(rows, SampleRows | GivenRows)
        noise = Noise(addresses=rows.addresses, device=self.device, dtype=self.dtype)
        return noise, None if rows.labels is None else torch.from_numpy(rows.labels).to(self.device)

    def _given(self, rows: GivenRows) -> Given:
        return Given(values=self._tensor(rows.values), mask=None if rows.mask is None else self._tensor(rows.mask))

    def _images(self, images: Tensor, rows: int) -> Float32s:
        sample = self.card.sample
        _check_shape(images, (rows, *sample.tensor_shape))
        # (B, C, H, W) -> (B, H, W, C)
        return _to_float32(images.permute(0, 2, 3, 1) if sample.modality == "image" else images)

    def _read(self, operation: Operation, rows: ImageRows) -> Float32s:
        images = self._tensor(rows.images)
        if operation == "CLASSIFY":
            values = self._method("classify")(images)
            _check_shape(values, (len(rows), len(self.card.classes)))
        else:
            values = self._method("embed")(images)
            _check_shape(values, (len(rows), values.shape[-1] if values.ndim == 2 else 0))
        return _to_float32(values)

    def _work_on_given(self, operation: Operation, rows: GivenRows, draw: Draw, deadline: Deadline) -> Float32s:
        values, (noise, labels) = self._tensor(rows.values), self._conditions(rows)
        if operation == "ENCODE":
            return self._encode(values, labels)
        if operation == "DECODE":
            return self._images(self._method("decode")(values, labels), len(rows))
        if operation == "SCORE":
            scores = self._method("score")(values, labels, noise, draw, deadline)
            _check_shape(scores, (len(rows), len(self.card.score_columns)))
            return _to_float32(scores)
        given = self._given(rows)
        if operation == "TRANSLATE":
            return self._images(self._method("translate")(given, labels, noise, draw, deadline), len(rows))
        return self._images(self._method("sample_given")(given, noise, labels, draw, deadline), len(rows))

    def _encode(self, images: Tensor, labels: Tensor | None) -> Float32s:
        mean, logvar = self._method("encode")(images, labels)
        shape = (len(images), self.card.latent_dim or 0)
        _check_shape(mean, shape)
        if logvar is not None:
            _check_shape(logvar, shape)
        spread = torch.zeros_like(mean) if logvar is None else (0.5 * logvar.float()).exp()
        return _to_float32(torch.stack([mean.float(), spread.float()], dim=1))  # (B, d) -> (B, 2, d)

    def _method(self, name: str) -> Callable[..., Any]:
        """Find the family's method for an operation; the card may list more than the family can do."""
        method = getattr(self.module, name, None)
        if not callable(method):
            raise WrongOutputError(f"the family has no method {name}; add it, or remove the operation from the card")
        return cast("Callable[..., Any]", method)

    def _tensor(self, values: Float32s) -> Tensor:
        """Move rows to the device: images as (B, C, H, W) in the network's memory layout, others as they are."""
        rows = torch.from_numpy(values)
        if values.ndim != len("BHWC"):
            return rows.to(self.device, self.dtype)
        images = rows.permute(0, 3, 1, 2).to(self.device, self.dtype)  # (B, H, W, C) -> (B, C, H, W)
        return images.contiguous(memory_format=self.layout)

    def _transform(self, rows: ManipulationRows) -> Uint8s:
        if not isinstance(self.module, Transformer):
            raise WrongOutputError("the family cannot transform images")
        images = torch.from_numpy(rows.images).to(self.device)
        values = self.module.transform(images, rows.table, rows.addresses)
        if values.shape != images.shape or values.dtype != torch.uint8:
            found = f"{values.dtype} of shape {tuple(values.shape)}"
            raise WrongOutputError(
                f"the family returned {found} for images of {tuple(images.shape)}; return uint8 of the same shape"
            )
        return np.ascontiguousarray(values.cpu().numpy())


def build_network(card: Card, module: nn.Module, settings: Settings) -> Network:
    """Move a family's module with its weights to the device, precision and memory layout of the settings.

    The module is changed in place.
    """
    device = torch.device(settings.device)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    layout = torch.channels_last if settings.layout == "nhwc" else torch.contiguous_format
    module = module.eval().requires_grad_(False).to(device=device, dtype=torch.float32)
    folded: tuple[str, ...] = ()
    if settings.folded:  # in float32, so that folded weights are rounded to bf16 once
        exact = Network(card=card, module=module, device=device, dtype=torch.float32)
        folded = fold_norms(module, partial(_run_probes, exact))
    module = module.to(dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]
    return Network(
        card=card, module=module, device=device, dtype=dtype, layout=layout, compiled=settings.compiled, folded=folded
    )


def _run_probes(network: Network) -> list[Values]:
    card = network.card
    addresses = Addresses.of_range(0, 0, min(_FOLD_ROWS, card.limits.max_exec_batch))
    return [network.probe(operation, make_probe_rows(card, operation, addresses)) for operation in card.operations]


def _check_shape(values: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(values.shape) != expected:
        remedy = "return one row for each row of z, or correct the card"
        raise WrongOutputError(f"the family returned shape {tuple(values.shape)}, expected {expected}; {remedy}")
    if not values.is_floating_point():
        raise WrongOutputError(f"the family returned {values.dtype}, expected floats; return floats in value_range")


def _to_float32(values: Tensor) -> Float32s:
    return np.ascontiguousarray(values.to("cpu", torch.float32).numpy())
