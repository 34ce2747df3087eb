"""A generator as a worker runs it: with its card's defaults for parameters that are unset, and its pictures looked at.

A sampler of a model folder enters what measures it through here, so that what is measured is what a request without
parameters gets, and a module of one's own that fails ends in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from fount.v1 import sampling_pb2
from handlers.cards.card import Card
from handlers.execution.pixels import find_rows_within
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.worker.parameters import read_draw

__all__ = ["AsServed", "CannotMeasure"]


class CannotMeasure(Exception):
    """A model draws nothing to measure, or does not go with its data or judge. The message says what to do."""


class AsServed(nn.Module):
    """A sampler that draws as its card says, and refuses pictures that a worker would not send."""

    def __init__(self, module: Sampler, card: Card, folder: Path) -> None:
        """Wrap a module.

        Args:
            module: with its weights, on the CPU, in evaluation mode.
            card: the model's.
            folder: the model's, for messages.
        """
        super().__init__()
        self._sampler, self._card, self._folder = module, card, folder
        self._draw = read_draw(sampling_pb2.Parameters(), card)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Refuse: it wraps what is there.

        Raises:
            ValueError: always.
        """
        raise ValueError("a wrapped sampler is not built from a configuration")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture a row, as `Sampler.sample` says.

        Args:
            noise: B addresses.
            labels: (B,) int64, or None when unconditional.
            draw: must have nothing set: the card's defaults are taken.
            deadline: as in `Sampler.sample`.

        Returns:
            (B, C, H, W) floating, within the card's value range.

        Raises:
            CannotMeasure: the module failed, or its pictures are not those of its card.
        """
        assert draw == Draw(), "what is measured is what a request without parameters gets"
        try:
            images = self._sampler.sample(noise, labels, self._draw, deadline)
        except Exception as error:  # a module of one's own raises whatever it likes
            told = str(error).partition("\n")[0]
            raise self._refusal(f"failed with {type(error).__name__}: {told}") from error
        size = self._card.sample
        shape = (len(noise.addresses), size.channels, size.height, size.width)
        if tuple(images.shape) != shape:
            raise self._refusal(f"drew {tuple(images.shape)}, its card says {shape}")
        if not find_rows_within(images.float().cpu().numpy(), size.value_range).all():
            low, high = size.value_range
            raise self._refusal(f"drew pictures that are not finite or not within [{low:g}, {high:g}]")
        return images

    def _refusal(self, what: str) -> CannotMeasure:
        return CannotMeasure(f"{self._card.name} {what}; run: fount check {self._folder}")
