"""The training loop every recipe shares: Adam with decoupled decay, a cosine rate, and averaged weights.

Enters: a module and what a batch costs. Leaves: the module with its weights averaged along the way, which are better
and steadier than the last ones. Random numbers come from one generator on the CPU, so a seed means the same rows and
noise on every device.

Sources: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; Polyak and Juditsky 1992 (averaging).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["BatchLoss", "Fit", "Probe", "fit", "one_thread", "reproducible"]

BatchLoss = Callable[[Tensor], Mapping[str, Tensor]]
"""Rows of the training set, (B,) int64, to named losses; the first is minimised, the others are shown."""

Probe = Callable[[nn.Module], Mapping[str, float]]
"""The averaged module to named numbers worth watching."""

_SHOWN_EVERY = 50
_PROBES = 10


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch: rows a step, drawn with replacement.
        rate: learning rate at the start; it falls to 0 along half a cosine.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: longer gradients are shortened to this.
    """

    steps: int
    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, and then on as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducible(seed: int) -> Iterator[torch.Generator]:
    """Train on one thread with deterministic kernels; leave torch as it was.

    Yields:
        The generator of everything random but initial weights, which come from torch's own, seeded alike and put back.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.use_deterministic_algorithms(strict)


def fit(
    module: nn.Module, loss: BatchLoss, rows: int, how: Fit, generator: torch.Generator, probe: Probe | None = None
) -> nn.Module:
    """Train a module in place.

    Args:
        module: on its device; its last weights stay in it.
        loss: what a batch costs.
        rows: size of the training set.
        how: steps, rates and averaging.
        generator: where the rows of a batch come from.
        probe: asked ten times along the way, for the progress bar.

    Returns:
        A copy with averaged weights, in evaluation mode.
    """
    average = copy.deepcopy(module).requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=how.rate, weight_decay=how.decay)
    shown: dict[str, str] = {}
    with tqdm(total=how.steps, unit="step", disable=None) as bar:
        for step in range(how.steps):
            optimizer.param_groups[0]["lr"] = how.rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
            losses = loss(torch.randint(rows, (how.batch,), generator=generator))
            optimizer.zero_grad()
            next(iter(losses.values())).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), how.max_gradient_norm)
            optimizer.step()
            _average(average, module, max(how.averaging, 1 / (step + 1)))
            if probe is not None and (step + 1) % max(1, how.steps // _PROBES) == 0 and not bar.disable:
                shown |= {name: f"{value:.3f}" for name, value in probe(average.eval()).items()}
            if step % _SHOWN_EVERY == 0 and not bar.disable:
                bar.set_postfix(shown | {name: f"{value.item():.3f}" for name, value in losses.items()})
            bar.update()
    return average.eval()


@torch.no_grad()
def _average(average: nn.Module, module: nn.Module, weight: float) -> None:
    for mean, value in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, weight)
