"""Training of autoregressive models: minimises the negative log-likelihood of real rows.

A part of the labels is left out, so that one network learns p(x|y) and p(x).

Source: Ho and Salimans, "Classifier-free diffusion guidance", 2021, section 3.2 (label dropout).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from handlers.recipes.catalogue import AutoregressiveFit, Recipe
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["AutoregressiveTask", "Likelihood"]


@runtime_checkable
class Likelihood(Protocol):
    """A family with an exact likelihood that can be trained."""

    def log_likelihood(self, values: Tensor, labels: Tensor) -> Tensor:
        """Compute log p(x|y) of whole rows.

        Args:
            values: (B, ...) in the card's value range.
            labels: (B,) int64; the number of classes stands for no class.

        Returns:
            (B,) nats.
        """
        ...


class AutoregressiveTask(SingleNetworkTask):
    """One batch a step; the loss is in nats per dimension."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build the network, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, AutoregressiveFit)
        # Convolutions then take two thirds of the time.
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dropout, self._warm_up, self._classes = recipe.fit.label_dropout, recipe.fit.warm_up, len(recipe.classes)

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the mean negative log-likelihood of a dimension."""
        assert isinstance(self.module, Likelihood)
        dropped = torch.rand(len(labels), generator=self._generator) < self._dropout
        shown = (
            labels.masked_fill(dropped.to(labels.device), self._classes) if self._classes else torch.zeros_like(labels)
        )
        nats = self.module.log_likelihood(images, shown)
        return {"loss": -nats.mean() / images[0].numel()}

    def _rate(self, number: int) -> float:
        """Return the learning rate of a step: it rises for the warm-up, then follows the cosine."""
        return super()._rate(number) * min(1.0, (number + 1) / self._warm_up)
