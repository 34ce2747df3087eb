"""Training tasks: the interface of one optimiser step, its hyperparameters, and the task of one network with one loss.

The loop of `handlers.recipes.run.run` takes a task's steps; named losses leave at every step, and a generator or
classifier with averaged weights at the end. A task's state is everything the next step depends on, so that a resumed
run ends in the same weights.

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
    "AdamWFit",
    "ClassifierFit",
    "GanFit",
    "SingleNetworkTask",
    "Task",
    "VaeFit",
    "average_into",
    "pack_state",
    "unpack_state",
]

_RANDOM = "random"  # name of the generator in a packed state


class Task(Protocol):
    """One model in training."""

    @property
    def module(self) -> nn.Module:
        """The trained network that is kept, with the weights of the last step."""
        ...

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step.

        Args:
            number: of the step, from 0; learning rates depend on it.

        Returns:
            Named losses, each (), detached.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: weights, averages, buffers, moments, random states."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a `state`.

        Raises:
            KeyError: it is of another task.
        """
        ...

    def averaged(self) -> nn.Module:
        """Return the network with averaged weights, in evaluation mode; later steps change it."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdamWFit:
    """Hyperparameters of AdamW with a learning rate that falls to 0 along half a cosine.

    A run's weights depend on its fit; checkpoints identify it by its repr, so fields keep their names.

    Attributes:
        batch: rows of a step, drawn with replacement.
        rate: learning rate at the start.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: gradients are clipped to this norm.
    """

    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ClassifierFit(AdamWFit):
    """Hyperparameters of a classifier.

    Attributes:
        decay: decoupled weight decay.
        smoothing: share of a label that is distributed over all classes.
        augmentation: random changes of pictures.
    """

    decay: float = 0.05
    smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=ShiftAndNoise)


@dataclass(frozen=True, kw_only=True)
class VaeFit(AdamWFit):
    """Hyperparameters of an autoencoder; reconstruction and divergence have equal weights."""


@dataclass(frozen=True, kw_only=True)
class GanFit:
    """Hyperparameters of a conditional GAN.

    Attributes:
        batch: real rows of a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of its first convolution.
        projection: length of the features that its projection compares with the class; 0 is none.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall linearly.
        last_share: of the rates, at the end.
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


class SingleNetworkTask(ABC):
    """A task with one network and one loss."""

    def __init__(self, module: nn.Module, rows: int, fit: AdamWFit, *, steps: int, generator: torch.Generator) -> None:
        self.module = module
        self._rows, self._fit, self._steps, self._generator = rows, fit, steps, generator
        self._average = copy.deepcopy(module).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(module.parameters(), lr=fit.rate, weight_decay=fit.decay)

    @abstractmethod
    def losses(self, rows: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            rows: (B,) int64, of the training set.
            generator: of noise and augmentation.

        Returns:
            Named losses, each (); the first is minimised, the others are shown.
        """

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step, as in `Task`."""
        fit = self._fit
        self._optimizer.param_groups[0]["lr"] = fit.rate * 0.5 * (1 + math.cos(math.pi * number / self._steps))
        losses = self.losses(torch.randint(self._rows, (fit.batch,), generator=self._generator), self._generator)
        self._optimizer.zero_grad()
        next(iter(losses.values())).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), fit.max_gradient_norm)
        self._optimizer.step()
        average_into(self._average, self.module, max(fit.averaging, 1 / (number + 1)))
        return {name: loss.detach() for name, loss in losses.items()}

    def state(self) -> dict[str, Tensor]:
        """Return everything the next step depends on, as in `Task`."""
        return pack_state(self._modules(), {"optimizer": self._optimizer}, self._generator)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state, as in `Task`."""
        unpack_state(state, self._modules(), {"optimizer": self._optimizer}, self._generator)

    def averaged(self) -> nn.Module:
        """Return the network with averaged weights, as in `Task`."""
        return self._average

    def _modules(self) -> dict[str, nn.Module]:
        return {"module": self.module, "average": self._average}


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, weight: float) -> None:
    """Update a running average of a module's weights and running statistics; counters are copied.

    Args:
        average: a module alike.
        module: with the new weights.
        weight: of the new weights; 0 keeps the average, 1 copies the module.
    """
    means, values = ((*m.parameters(), *m.buffers()) for m in (average, module))
    for mean, value in zip(means, values, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)


def pack_state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], generator: torch.Generator
) -> dict[str, Tensor]:
    """Copy the state of modules, optimisers and random numbers to the CPU.

    What is not a tensor, such as a learning rate, follows from the number of the step and is not included.

    Args:
        modules: by name; their weights and buffers are copied.
        optimizers: by name; names differ from those of modules.
        generator: on the CPU.

    Returns:
        Copied tensors: `<module>.<weight>`, `<optimizer>.<number of the parameter>.<moment>` and `random`.
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
    """Restore the result of `pack_state` in modules and optimisers built alike, on any device.

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
    """Select the entries of one module or optimiser, without its name."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
