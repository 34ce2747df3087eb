"""What a training run is made of: tasks, one optimiser step at a time, whose whole state can be put away and taken up.

A task enters the loop of `handlers.recipes.run.run`; named losses leave it at every step, a generator or classifier
with
averaged weights at the end. Its state is everything that the next step depends on, so that a run that was cut off goes
on to the very same weights.

Sources: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; Polyak and Juditsky 1992 (averaging).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from handlers.recipes.tasks.fits import Descent
from handlers.recipes.tasks.snapshots import pack_state, unpack_state

__all__ = ["DescentTask", "Task", "average_into"]


class Task(Protocol):
    """Something that is trained."""

    @property
    def module(self) -> nn.Module:
        """The network that is trained and kept, with the weights of the last step."""
        ...

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step.

        Args:
            number: of the step, from 0; rates depend on it.

        Returns:
            Named losses, each (), detached.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Name all that the next step depends on: weights, averages, buffers, moments, random states."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where a `state` was taken.

        Raises:
            KeyError: it is of another task.
        """
        ...

    def averaged(self) -> nn.Module:
        """Give the network with averaged weights, in evaluation mode; it goes on changing."""
        ...


class DescentTask(ABC):
    """A task with one network and one loss."""

    def __init__(self, module: nn.Module, rows: int, how: Descent, *, steps: int, generator: torch.Generator) -> None:
        self.module = module
        self._rows, self._how, self._steps, self._generator = rows, how, steps, generator
        self._average = copy.deepcopy(module).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(module.parameters(), lr=how.rate, weight_decay=how.decay)

    @abstractmethod
    def losses(self, rows: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Say what a batch costs.

        Args:
            rows: (B,) int64, of the training set.
            generator: of noise and augmentation.

        Returns:
            Named losses, each (); the first is minimised, the others are shown.
        """

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step, as in `Task`."""
        how = self._how
        self._optimizer.param_groups[0]["lr"] = how.rate * 0.5 * (1 + math.cos(math.pi * number / self._steps))
        losses = self.losses(torch.randint(self._rows, (how.batch,), generator=self._generator), self._generator)
        self._optimizer.zero_grad()
        next(iter(losses.values())).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), how.max_gradient_norm)
        self._optimizer.step()
        average_into(self._average, self.module, max(how.averaging, 1 / (number + 1)))
        return {name: loss.detach() for name, loss in losses.items()}

    def state(self) -> dict[str, Tensor]:
        """Name all that the next step depends on, as in `Task`."""
        return pack_state(self._modules(), {"optimizer": self._optimizer}, self._generator)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where a state was taken, as in `Task`."""
        unpack_state(state, self._modules(), {"optimizer": self._optimizer}, self._generator)

    def averaged(self) -> nn.Module:
        """Give the network with averaged weights, as in `Task`."""
        return self._average

    def _modules(self) -> dict[str, nn.Module]:
        return {"module": self.module, "average": self._average}


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, weight: float) -> None:
    """Move a running average towards a module's weights, running statistics included; counters are copied.

    Args:
        average: as many parameters and buffers as the module has.
        module: what it follows.
        weight: 0 keeps the average, 1 copies the module.
    """
    means, values = ((*m.parameters(), *m.buffers()) for m in (average, module))
    for mean, value in zip(means, values, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)
