"""A tiny family that translates small pictures to larger ones in many steps, and does nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fount.address import Addresses, Stream
from handlers.cards import card as cards
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps
from handlers.verification.golden import record_golden
from tests.handlers.toys import SIDE, fill_parameters, seal_folder, toy_card, write_model

SMALL, ENLARGER_STEPS = SIDE // 2, 5
DIRECTIONS = 2


class EnlargerToy(nn.Module):
    """Moves noise towards the given picture at full size, in each of two directions by another offset."""

    discrete: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Embedding(DIRECTIONS, 1)
        self.mix = nn.Conv2d(2, 1, 3, padding=1)
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return sample_in_steps(self, noise, labels, draw, deadline)

    def steps(self, draw: Draw) -> int:
        return draw.steps or ENLARGER_STEPS

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        return Draw(steps=2), (0, 1)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        raise AssertionError("nothing is given")

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        large = nn.functional.interpolate(given.values, SIDE)
        return torch.cat([noise.normal(Stream.LATENT, (1, SIDE, SIDE)), large], dim=1)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        assert labels is not None
        fresh = noise.normal(Stream.STEP, (1, SIDE, SIDE), step=step)
        moved = 0.7 * state[:, :1] + self.mix(state.contiguous()) + 0.1 * fresh + self.offsets(labels)[:, :, None, None]
        return torch.cat([moved, state[:, 1:]], dim=1)

    def finish(self, state: Tensor) -> Tensor:
        return torch.sigmoid(state[:, :1] + 2 * state[:, 1:])


def enlarger_card() -> cards.Card:
    steps = cards.Parameter(min=1.0, max=50.0, default=float(ENLARGER_STEPS), description="Steps of the sampler.")
    return dataclasses.replace(
        toy_card(DIRECTIONS, max_exec_batch=16),
        operations=("TRANSLATE",),
        prior=(),
        input=cards.Input(height=SMALL, width=SMALL, channels=1),
        parameters={"steps": steps},
        draw_steps=ENLARGER_STEPS,
    )


def small_images(count: int) -> NDArray[np.uint8]:
    words = Addresses.of_range(2, 0, count).words(Stream.LATENT, SMALL * SMALL)
    return (words % 256).astype(np.uint8).reshape(count, SMALL, SMALL, 1)


def write_enlarger_folder(folder: Path) -> Path:
    """Write an archive of the family, unpacked."""
    card = write_model(folder, enlarger_card(), EnlargerToy(), images=small_images(64))
    (folder / "family.py").write_bytes(Path(__file__).read_bytes())
    seal_folder(folder, card, source=Path(__file__))
    return folder


def record_enlarger(file: Path, images: NDArray[np.uint8] | None = None) -> None:
    record_golden(enlarger_card(), EnlargerToy(), file, images=small_images(64) if images is None else images)
