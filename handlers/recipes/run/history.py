"""What a training run has seen so far: losses, thinned out so that they never grow, and looks of its probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from handlers.recipes.run.watch import Look

__all__ = ["MOST_POINTS", "History"]

MOST_POINTS = 1000
"""Losses kept; when there are more, every other is dropped and half as many are kept from then on."""


@dataclass(kw_only=True)
class History:
    """Losses and looks.

    Attributes:
        losses: (step, named losses) in order; steps count from 1 and are multiples of stride.
        looks: all of them; a run takes a fixed number.
        stride: how many steps lie between two losses kept.
    """

    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    stride: int = 1

    def add_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Keep the losses of a step, or not, by its number alone."""
        if step % self.stride:
            return
        self.losses.append((step, dict(losses)))
        if len(self.losses) > MOST_POINTS:
            self.stride *= 2
            self.losses = [point for point in self.losses if point[0] % self.stride == 0]

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` reads."""
        looks = [{"step": look.step, "accuracies": look.accuracies, "ratio": look.ratio} for look in self.looks]
        return {"stride": self.stride, "losses": self.losses, "looks": looks}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            stride=int(document["stride"]),
            losses=[(int(step), dict(losses)) for step, losses in document["losses"]],
            looks=[
                Look(step=look["step"], accuracies=tuple(look["accuracies"]), ratio=look["ratio"])
                for look in document["looks"]
            ],
        )
