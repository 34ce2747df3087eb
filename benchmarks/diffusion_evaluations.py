"""Quality by the number of network evaluations: `python -m benchmarks.diffusion_evaluations mnist-diffusion`.

Heun's method, DDIM and DDPM draw the same addresses with budgets of 4 to 64 evaluations of the network, next to a
one-step generator. A cell is the share of samples that the data set's classifier gives their label, with its Wilson
interval, and the mean pixel distance between two samples of a class over that of test rows: below 1 they vary less.
One thread, without a server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks.child import ROOT
from benchmarks.output import log
from fount.intervals import wilson_interval
from handlers.cards.card import load_card
from handlers.execution.numerics import configure_torch
from handlers.family import Draw, Sampler
from handlers.recipes.catalogue import classifier_of
from handlers.recipes.data.load import TrainingData, load_data
from handlers.recipes.model_folder import Evaluator, load_evaluator, load_module
from handlers.recipes.quality.measures import count_correct, distance_ratio, draw_images
from handlers.settings import Settings

__all__ = ["main"]

_SEED = 31
_BUDGETS = (4, 8, 16, 32, 64)
_TAIL = 0.025
_HEAD = "| model | sampler | evaluations | label accuracy | distance ratio | s a sample |\n|---|---|---|---|---|---|"


@click.command()
@click.argument("model")
@click.option("--beside", multiple=True, help="One-step models of the same data.")
@click.option("--model-store", type=click.Path(path_type=Path, exists=True), default=ROOT / "model_store")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of the data, where they are files.")
@click.option("--count", type=click.IntRange(min=20), default=300, show_default=True, help="Samples of a cell.")
@click.option("--guidance", multiple=True, type=float, default=(1.0,), show_default=True)
def main(
    model: str,
    beside: tuple[str, ...],
    model_store: Path,
    data: Path | None,
    count: int,
    guidance: tuple[float, ...],
) -> None:
    """Print a table of the quality of a diffusion model's samples by sampler and number of evaluations."""
    configure_torch(Settings(threads=1))
    card = load_card(model_store / model)
    assert card.recipe is not None
    rows = load_data(card.recipe.data, data)
    evaluator = load_evaluator(model_store / classifier_of(rows.name).name, rows)
    click.echo(_HEAD)
    for name in beside:
        click.echo(_measure(name, model_store, rows, evaluator, count, ("one step", 1, Draw())))
    for scale in guidance:
        for cell in _cells(scale):
            click.echo(_measure(model, model_store, rows, evaluator, count, cell))


def _cells(scale: float) -> Iterator[tuple[str, int, Draw]]:
    """Name samplers and their evaluations; those of guidance count twice."""
    each, suffix = (1, "") if scale == 1 else (2, f", guidance {scale:g}")
    for budget in (budget // each for budget in _BUDGETS if budget // each >= 2):
        heun = budget // 2  # Heun's n steps are 2n - 1 evaluations
        draws = {
            "Heun": (2 * heun - 1, Draw(steps=heun, guidance_scale=scale)),
            "DDIM": (budget, Draw(steps=budget, eta=0.0, guidance_scale=scale)),
            "DDPM": (budget, Draw(steps=budget, eta=1.0, guidance_scale=scale)),
        }
        yield from ((name + suffix, each * evaluations, draw) for name, (evaluations, draw) in draws.items())


def _measure(
    name: str, store: Path, data: TrainingData, evaluator: Evaluator, count: int, cell: tuple[str, int, Draw]
) -> str:
    """Return one row of the table."""
    sampler, evaluations, draw = cell
    log(f"{name}: {sampler}, {evaluations} evaluations")
    card = load_card(store / name)
    module = load_module(card, store / name)
    assert isinstance(module, Sampler)
    classes = len(data.classes)
    labels = torch.arange(count) % classes
    start = time.perf_counter()
    images = draw_images(module, _SEED, count, labels, value_range=card.sample.value_range, parameters=draw)
    seconds = (time.perf_counter() - start) / count
    hits = count_correct(evaluator.classifier, images, labels)
    low, high = wilson_interval(hits, count, tail=_TAIL)
    ratios = [distance_ratio(images[labels == k], data.test.of_class(k)[: len(labels)]) for k in range(classes)]
    accuracy = f"{hits / count:.3f} [{low:.3f}, {high:.3f}]"
    return f"| {name} | {sampler} | {evaluations} | {accuracy} | {sum(ratios) / classes:.3f} | {seconds:.3f} |"


if __name__ == "__main__":
    main()
