"""Training tasks: the base class with the state of a training, and the task of one network with one loss.

A recipe and its training rows enter. The loop of `handlers.recipes.run.loop` takes a task's steps; named losses leave
at every step, and a generator or classifier with averaged weights at the end. A task's state is everything the next
step depends on, so that a resumed run ends in the same weights.

Sources: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; Polyak and Juditsky 1992 (averaging).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models import load_family
from handlers.recipes.catalogue import AdamWFit, Recipe
from handlers.recipes.data.load import Split

__all__ = ["SingleNetworkTask", "Task", "average_into"]

_RANDOM = "random"  # name of the generator in a packed state


class Task(ABC):
    """One model in training; its state can be saved and restored between two steps.

    Attributes:
        module: the trained network that is kept, with the weights of the last step.
    """

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build the network; initial weights are drawn from torch's own generator.

        Args:
            recipe: family, configuration and fit.
            rows: to train on.
            steps: of the whole training; learning rates depend on it.
            generator: of batches, noise and augmentation, on the CPU.
            device: where to train.
        """
        module = load_family(recipe.family, recipe.config)
        assert isinstance(module, nn.Module)
        self.module: nn.Module = module.to(device)
        self._steps, self._generator, self._device = steps, generator, device
        self._images, self._labels = rows.images.to(device), rows.labels.to(device)
        self._average: nn.Module = copy.deepcopy(self.module).requires_grad_(False).eval()
        self._modules: dict[str, nn.Module] = {"module": self.module, "average": self._average}  # by name in the state
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    @abstractmethod
    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take the optimiser step of a number, from 0, and return named losses, each (), detached."""

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

    def _draw_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Draw rows with replacement: (size, C, H, W) in [0, 1], and (size,) int64."""
        rows = torch.randint(len(self._labels), (size,), generator=self._generator).to(self._device)
        return self._images[rows], self._labels[rows]

    def _descend(self, name: str, loss: Tensor, rate: float, max_gradient_norm: float | None = None) -> None:
        optimizer = self._optimizers[name]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_gradient_norm)
        optimizer.step()


class SingleNetworkTask(Task):
    """A task with one network and one loss, trained by AdamW."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build the network, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, AdamWFit)
        self._fit = recipe.fit
        self._optimizers["optimizer"] = torch.optim.AdamW(
            self.module.parameters(), lr=self._fit.rate, weight_decay=self._fit.decay
        )

    @abstractmethod
    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64.

        Returns:
            Named losses, each (); the first is minimised, the others are shown.
        """

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one optimiser step, as in `Task`."""
        fit = self._fit
        losses = self.losses(*self._draw_batch(fit.batch))
        self._descend("optimizer", next(iter(losses.values())), self._rate(number), fit.max_gradient_norm)
        average_into(self._average, self.module, max(fit.averaging, 1 / (number + 1)))
        return {name: loss.detach() for name, loss in losses.items()}

    def _rate(self, number: int) -> float:
        """Return the learning rate of a step, on half a cosine."""
        return self._fit.rate * 0.5 * (1 + math.cos(math.pi * number / self._steps))


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, weight: float) -> None:
    """Update a running average of a module's weights and running statistics; counters are copied.

    A weight of 0 keeps the average, 1 copies the module.
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
