"""Tiny many-step families that can be preempted, and requests to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fount.address import Stream
from fount.worker.v1 import worker_pb2
from handlers.cards import card as cards
from handlers.family import Deadline, Draw, Noise
from handlers.stepping import sample_in_steps
from handlers.worker.worker import Worker
from tests.handlers.toys import (
    SIDE,
    fill_parameters,
    request,
    sample_item,
    seal_folder,
    send,
    toy_card,
    write_model,
)

CHANNELS, USUAL_STEPS = 3, 6
STATE_IS_NAN, RAISES_LATE = 673, 674
"""Seeds whose state is not finite after step 2, and at which step 2 raises."""


class SteppedToy(nn.Module):
    """A diffusion: convolutions of the noisy picture and its label, fresh noise at every step."""

    when_stepping: Callable[[int], None] = staticmethod(lambda step: None)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.colours = nn.Embedding(classes, CHANNELS) if classes else None
        self.denoise = nn.Sequential(
            nn.Conv2d(CHANNELS, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, CHANNELS, 1)
        )
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["classes"])

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return sample_in_steps(self, noise, labels, draw, deadline)

    def steps(self, draw: Draw) -> int:
        return draw.steps or USUAL_STEPS

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        return noise.normal(Stream.LATENT, (CHANNELS, SIDE, SIDE))

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        type(self).when_stepping(step)
        x = state.to(noise.dtype)
        if self.colours is not None and labels is not None:
            x = x + self.colours(labels)[:, :, None, None]  # (B, C) -> (B, C, 1, 1)
        sigma = 1 - (step + 1) / self.steps(draw)
        fresh = noise.normal(Stream.STEP, (CHANNELS, SIDE, SIDE), step=step)
        after = 0.8 * state + self.denoise(x).float() + sigma * fresh.float()
        return _spoilt(after, step, noise)

    def finish(self, state: Tensor) -> Tensor:
        return torch.sigmoid(state.mean(dim=1, keepdim=True))


class HalfToy(SteppedToy):
    """Gives its states as its network computes them, channels last in bf16."""

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        return self.denoise(super().advance(state, step, noise, labels, draw).to(noise.dtype))


def _spoilt(after: Tensor, step: int, noise: Noise) -> Tensor:
    seeds = noise.addresses.seeds
    if step == 2 and RAISES_LATE in seeds:
        raise ZeroDivisionError("a secret of the model")
    if step == 2:
        after[torch.from_numpy(seeds == np.uint64(STATE_IS_NAN))] = float("nan")
    return after


def stepped_card(classes: int = 3) -> cards.Card:
    steps = cards.Parameter(min=1.0, max=50.0, default=float(USUAL_STEPS), description="Steps of the sampler.")
    return dataclasses.replace(toy_card(classes), parameters={"steps": steps}, draw_steps=USUAL_STEPS)


def write_stepped_folder(folder: Path, module: nn.Module, classes: int = 3) -> Path:
    """Write an archive of a family of this file, unpacked."""
    card = write_model(folder, stepped_card(classes), module)
    (folder / "family.py").write_bytes(Path(__file__).read_bytes())
    seal_folder(folder, card, source=Path(__file__))
    return folder


def call(*items: worker_pb2.WorkerItem, limit: int = 0, steps: int | None = None) -> worker_pb2.WorkerRequest:
    message = request(*items)
    message.step_limit = limit
    if steps is not None:
        message.parameters.steps = steps
    return message


def resumed(item: worker_pb2.WorkerItem, outcome: worker_pb2.WorkerOutcome) -> worker_pb2.WorkerItem:
    """The item that resumes where the outcome was preempted."""
    assert outcome.WhichOneof("outcome") == "carry", outcome
    return worker_pb2.WorkerItem(range=item.range, dtype=item.dtype, carry=outcome.carry)


def preempt(worker: Worker, item: worker_pb2.WorkerItem, limit: int = 2) -> worker_pb2.WorkerItem:
    """The item that resumes after a few steps."""
    return resumed(item, send(worker, call(item, limit=limit)).items[0])


def select_rows(item: worker_pb2.WorkerItem, start: int, count: int) -> worker_pb2.WorkerItem:
    """Some rows of a resumed item, as a separate item."""
    at, labels, state = item.range, list(item.range.labels), item.carry.state
    row = len(state.data) // at.count
    rest = sample_item(at.seed, at.start_index + start, count, tuple(labels[start : start + count]), item.dtype)
    rest.carry.next_step = item.carry.next_step
    rest.carry.state.CopyFrom(state)
    rest.carry.state.dims[0], rest.carry.state.data = count, state.data[start * row : (start + count) * row]
    return rest


def draw_preempted(worker: Worker, items: list[worker_pb2.WorkerItem], limits: list[int], steps: int) -> list[bytes]:
    """Draw items together, preempted after each of the limits in turn; the last call takes the remaining steps."""
    going = items
    for limit in limits:
        reply = send(worker, call(*going, limit=limit, steps=steps))
        going = [resumed(*pair) for pair in zip(going, reply.items, strict=True)]
    return values_of(send(worker, call(*going, steps=steps)))


def values_of(reply: worker_pb2.WorkerReply) -> list[bytes]:
    assert all(item.WhichOneof("outcome") == "value" for item in reply.items), reply
    return [item.value.data for item in reply.items]
