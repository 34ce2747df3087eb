"""A tiny sampler of many steps that draws grey levels row by row, and can be given the first ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.cards import card as cards
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps
from tests.handlers.toys import SIDE, fill_parameters, seal_folder, toy_card, write_model

LEVELS = 8


class RowToy(nn.Module):
    """Each row of pixels depends on the label and on the sum of the rows above; -1 is not drawn yet."""

    discrete: ClassVar[bool] = True
    when_stepping: Callable[[int], None] = staticmethod(lambda step: None)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(SIDE + classes, LEVELS * SIDE)
        self.classes = classes
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["classes"])

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return sample_in_steps(self, noise, labels, draw, deadline)

    def steps(self, draw: Draw) -> int:
        return SIDE

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        return Draw(), (0, SIDE - 1)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        return torch.full((len(noise.addresses), 1, SIDE, SIDE), -1.0)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        levels = (given.values * (LEVELS - 1)).round()
        return levels if given.mask is None else torch.where(given.mask == 1, levels, -1.0)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        type(self).when_stepping(step)
        above = state[:, 0, :step].clamp(min=0).sum(dim=1) / LEVELS  # (B, SIDE)
        classes = nn.functional.one_hot(labels, self.classes) if labels is not None else above.new_zeros(len(above), 0)
        logits = self.logits(torch.cat([above, classes.float()], dim=1)).unflatten(1, (SIDE, LEVELS))
        uniforms, after = noise.uniform(Stream.STEP, SIDE, step=step), state.clone()
        for column in range(SIDE):
            drawn = draw_values(logits[:, column], uniforms[:, column], draw).float()
            known = state[:, 0, step, column]
            after[:, 0, step, column] = torch.where(known >= 0, known, drawn)
        return after

    def finish(self, state: Tensor) -> Tensor:
        return state.clamp(min=0) / (LEVELS - 1)


def row_card(classes: int = 3) -> cards.Card:
    temperature = cards.Parameter(min=0.0, max=10.0, default=None, description="Divides the logits.")
    card = dataclasses.replace(toy_card(classes), parameters={"temperature": temperature})
    return dataclasses.replace(card, draw_steps=SIDE, conditions=("PREFIX",))


def write_row_folder(folder: Path, module: RowToy) -> Path:
    """Write an archive of the family, unpacked."""
    card = write_model(folder, row_card(module.classes), module)
    (folder / "family.py").write_bytes(Path(__file__).read_bytes())
    seal_folder(folder, card, source=Path(__file__))
    return folder
