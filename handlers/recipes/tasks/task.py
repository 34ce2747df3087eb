"""Training tasks: their hyperparameters, the base class with its state, and the task of one network with one loss.

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
]

_RANDOM = "random"  # name of the generator in a packed state


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


class Task(ABC):
    """One model in training; its state can be saved and restored between two steps.

    Attributes:
        module: the trained network that is kept, with the weights of the last step.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        others: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Create the average of the weights.

        Args:
            module: the network that is kept.
            optimizers: by name in the state.
            generator: of everything random, on the CPU.
            others: further networks, by name in the state.
        """
        self.module = module
        self._optimizers, self._generator = optimizers, generator
        self._average = copy.deepcopy(module).requires_grad_(False).eval()
        self._modules = {"module": module, "average": self._average, **(others or {})}

    @abstractmethod
    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step.

        Args:
            number: of the step, from 0; learning rates depend on it.

        Returns:
            Named losses, each (), detached.
        """

    def averaged(self) -> nn.Module:
        """Return the network with averaged weights, in evaluation mode; later steps change it."""
        return self._average

    def state(self) -> dict[str, Tensor]:
        """Copy everything the next step depends on to the CPU: weights, averages, buffers, moments, random states.

        What is not a tensor, such as a learning rate, follows from the number of the step and is not included.

        Returns:
            `<module>.<weight>`, `<optimizer>.<number of the parameter>.<moment>` and `random`.
        """
        packed = {
            f"{name}.{key}": value for name, each in self._modules.items() for key, value in each.state_dict().items()
        }
        for name, optimizer in self._optimizers.items():
            for number, moments in optimizer.state_dict()["state"].items():
                packed |= {f"{name}.{number}.{moment}": value for moment, value in moments.items()}
        packed[_RANDOM] = self._generator.get_state()
        return {name: value.detach().cpu().clone().contiguous() for name, value in packed.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a `state` of a task built alike, on any device.

        Raises:
            KeyError: a name is missing.
            RuntimeError: names or shapes are those of another network.
        """
        for name, module in self._modules.items():
            module.load_state_dict(_below(state, name))
        for name, optimizer in self._optimizers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(state, name).items():
                number, _, moment = key.partition(".")
                moments.setdefault(int(number), {})[moment] = value.clone()
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        self._generator.set_state(state[_RANDOM])

    def _descend(self, name: str, loss: Tensor, rate: float, max_gradient_norm: float | None = None) -> None:
        """Take one step of an optimiser."""
        optimizer = self._optimizers[name]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_gradient_norm)
        optimizer.step()


class SingleNetworkTask(Task):
    """A task with one network and one loss."""

    def __init__(self, module: nn.Module, rows: int, fit: AdamWFit, *, steps: int, generator: torch.Generator) -> None:
        optimizer = torch.optim.AdamW(module.parameters(), lr=fit.rate, weight_decay=fit.decay)
        super().__init__(module, {"optimizer": optimizer}, generator)
        self._rows, self._fit, self._steps = rows, fit, steps

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
        losses = self.losses(torch.randint(self._rows, (fit.batch,), generator=self._generator), self._generator)
        rate = fit.rate * 0.5 * (1 + math.cos(math.pi * number / self._steps))
        self._descend("optimizer", next(iter(losses.values())), rate, fit.max_gradient_norm)
        average_into(self._average, self.module, max(fit.averaging, 1 / (number + 1)))
        return {name: loss.detach() for name, loss in losses.items()}


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


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Select the entries of one module or optimiser, without its name."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
