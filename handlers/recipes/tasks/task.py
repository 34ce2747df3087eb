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
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from handlers.recipes.tasks.augmentations import Augmentation, ShiftAndNoise

__all__ = [
    "ClassifierFit",
    "Descent",
    "DescentTask",
    "GanFit",
    "Task",
    "VaeFit",
    "average_into",
    "pack_state",
    "unpack_state",
]


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


# FOLDED FROM handlers.recipes.tasks.task:
# Fits: the numbers a recipe is trained with, one record a kind of task. The catalogue fills them in, tasks read
# them. A fit is part of what a run's weights depend on.


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How one network goes downhill: Adam with decoupled decay, and a rate that falls to 0 along half a cosine.

    Attributes:
        batch: rows a step, drawn with replacement.
        rate: learning rate at the start.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: longer gradients are shortened to this.
    """

    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ClassifierFit(Descent):
    """How a classifier is trained.

    Attributes:
        decay: decoupled weight decay.
        smoothing: share of a label that is spread over all classes.
        augmentation: how pictures are changed.
    """

    decay: float = 0.05
    smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=ShiftAndNoise)


@dataclass(frozen=True, kw_only=True)
class VaeFit(Descent):
    """How an autoencoder is trained; nothing stands between reconstruction and divergence to be chosen."""


@dataclass(frozen=True, kw_only=True)
class GanFit:
    """How a conditional GAN is trained.

    Attributes:
        batch: real rows a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of its first convolution.
        projection: length of the features that its projection compares with the class; 0 is none.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall in a straight line.
        last_share: of the rates that is left at the end.
        averaging: weight of each step's weights in their running average.
        augment_shift: largest shift, in whole pixels, of what the discriminator sees; 0 is none.
    """

    batch: int = 128
    discriminator_features: int = 32
    projection: int = 0
    generator_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.9)
    constant_share: float = 0.5
    last_share: float = 0.02
    averaging: float = 0.001
    augment_shift: int = 0


# FOLDED FROM handlers.recipes.tasks.task:
# The state of a training run as named tensors: modules, optimisers and random numbers, put away and taken up.
# Names are `<module>.<weight>`, `<optimizer>.<number of the parameter>.<moment>` and `random`. What is not a
# tensor, such as a rate, follows from the step's number and is not kept.


_RANDOM = "random"


def pack_state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], generator: torch.Generator
) -> dict[str, Tensor]:
    """Copy everything to the CPU.

    Args:
        modules: by name; weights and buffers are taken.
        optimizers: by name, none of a module's.
        generator: on the CPU.

    Returns:
        Named tensors that share no memory with anything.
    """
    packed = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, moments in optimizer.state_dict()["state"].items():
            packed |= {f"{name}.{number}.{moment}": value for moment, value in moments.items()}
    packed[_RANDOM] = generator.get_state()
    return {name: value.detach().cpu().clone().contiguous() for name, value in packed.items()}


def unpack_state(
    state: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator,
) -> None:
    """Undo `pack_state`, into modules and optimisers made alike, on whatever device they are.

    Raises:
        KeyError: a name is missing.
        RuntimeError: names or shapes are those of another network.
    """
    for name, module in modules.items():
        module.load_state_dict(_below(state, name))
    for name, optimizer in optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(state, name).items():
            number, _, moment = key.partition(".")
            moments.setdefault(int(number), {})[moment] = value.clone()
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(state[_RANDOM])


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What stands under a name, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
