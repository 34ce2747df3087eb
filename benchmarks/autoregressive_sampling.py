"""Draws with and without caches: `python -m benchmarks.autoregressive_sampling mnist-pixelcnn mnist-imagegpt`.

The sampler without cache runs the whole network for every pixel or token, as `log_likelihood` does once; its time is
that of one such pass, times the number of pixels or tokens. Both run on one thread without a server, in turn, and the
least time of some rounds is taken: other load on the machine can only add to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.child import ROOT
from benchmarks.output import log
from fount.address import Addresses
from handlers.cards.card import load_card
from handlers.execution.numerics import configure_torch
from handlers.family import Deadline, Draw, Noise
from handlers.recipes.model_folder import load_module
from handlers.recipes.tasks.autoregressive import Likelihood
from handlers.settings import Settings
from handlers.stepping import ManyStepSampler, sample_in_steps

__all__ = ["main"]

_SEED = 1
_HEAD = "| model | batch | s a sample | ms a step | without cache, s | ratio |\n|---|---|---|---|---|---|"


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--model-store", type=click.Path(path_type=Path, exists=True), default=ROOT / "model_store")
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(1, 8, 16, 64))
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
def main(models: tuple[str, ...], model_store: Path, batches: tuple[int, ...], rounds: int) -> None:
    """Print a table of the seconds that a sample takes, with caches and without."""
    configure_torch(Settings(threads=1))
    click.echo(_HEAD)
    for name in models:
        card = load_card(model_store / name)
        module: Any = load_module(card, model_store / name)
        for batch in batches:
            log(f"{name}: batches of {batch}")
            click.echo(_measure(name, module, batch, classes=len(card.classes), rounds=rounds))


@torch.inference_mode()
def _measure(name: str, module: Any, batch: int, *, classes: int, rounds: int) -> str:
    assert isinstance(module, ManyStepSampler)
    assert isinstance(module, Likelihood)
    sampler: Any = module
    noise = Noise(addresses=Addresses.of_range(_SEED, 0, batch), device=torch.device("cpu"))
    labels = torch.arange(batch) % classes if classes else None
    drawn = sample_in_steps(module, noise, labels, Draw(), Deadline())
    shown = torch.zeros(batch, dtype=torch.int64) if labels is None else labels
    whole, one_pass = [], []
    for _ in range(rounds):
        whole.append(_seconds(lambda: sample_in_steps(module, noise, labels, Draw(), Deadline())))
        one_pass.append(_seconds(lambda: module.log_likelihood(drawn, shown)))
    steps = module.steps(Draw())
    cached, without = min(whole) / batch, min(one_pass) * steps * sampler.config.run / batch
    step_ms = 1000 * min(whole) / steps
    return f"| {name} | {batch} | {cached:.4f} | {step_ms:.1f} | {without:.2f} | {without / cached:.0f} |"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
