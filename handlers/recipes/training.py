"""From a recipe's name to a model folder: train with checkpoints, measure, write weights, golden samples and card."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from handlers.cards.card import Card
from handlers.execution.numerics import read_numerics
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import Recipe
from handlers.recipes.data.dataset import DataSet, check_classes
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import load_judge, write_model
from handlers.recipes.quality.metrics import measure
from handlers.recipes.run.checkpoints import alone_in
from handlers.recipes.run.probes import ClassifierProbe, GeneratorProbe, Probe
from handlers.recipes.run.reproducible import reproducible
from handlers.recipes.run.run import Pace, Place, Run
from handlers.recipes.tasks.autoencoders import AutoencoderTask
from handlers.recipes.tasks.classifiers import ClassifierTask
from handlers.recipes.tasks.gans import GanTask
from handlers.recipes.tasks.task import ClassifierFit, GanFit, Task, VaeFit
from handlers.settings import Settings

__all__ = ["Order", "build_task", "train_model", "train_module"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """One training that is asked for.

    Attributes:
        steps: optimiser steps.
        seed: of everything random.
        run_folder: for checkpoints and pictures.
        resume: go on from its newest checkpoint.
        device: where to train.
        threads: torch's.
        pace: what comes by the clock.
    """

    steps: int
    seed: int
    run_folder: Path
    resume: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    pace: Pace = field(default_factory=Pace)


def train_model(
    recipe: Recipe,
    folder: Path,
    order: Order,
    *,
    data_folder: Path | None,
    judge_folder: Path | None,
    say: Callable[[str], None],
) -> Card:
    """Train a model, measure it, and write its folder.

    Args:
        recipe: which model.
        folder: where it goes; made when absent, its files are replaced.
        order: how long, from which seed, and where.
        data_folder: of data sets that are files.
        judge_folder: the classifier's; None for a classifier.
        say: told of everything worth a line.

    Raises:
        CardError: the classifier's folder is not whole, or it is not one of these data.
        DataError: the data are missing or damaged, or lack a class.
        CheckpointError: the run's folder holds another run, or nothing whole.
        TrainingFailed: training diverged or collapsed.
        Paused: it was stopped before its last step.
    """
    data = load_data(recipe.data, data_folder)
    check_classes(data)
    judge = load_judge(judge_folder, data) if judge_folder else None
    module = train_module(recipe, data, judge, order, say=say)
    say(f"{recipe.name} is trained; measuring it{', which takes minutes' if recipe.samples else ''}")
    quality = measure(recipe, data, module, judge, seed=order.seed)
    return write_model(recipe, folder, data, module, quality, steps=order.steps, seed=order.seed)


def train_module(
    recipe: Recipe, data: DataSet, judge: ConvClassifier | None, order: Order, *, say: Callable[[str], None]
) -> nn.Module:
    """Train the module alone, or go on with it.

    Args:
        recipe: which model.
        data: what to train on.
        judge: labels samples along the way; None for a classifier.
        order: how long, from which seed, and where.
        say: told of everything worth a line.

    Returns:
        The module with averaged weights, on the CPU, in evaluation mode.

    Raises:
        CheckpointError, TrainingFailed, Paused: as in `train_model`.
    """
    device = order.device
    with reproducible(order.seed, threads=order.threads, device=device) as generator, alone_in(order.run_folder):
        place = Place(
            name=recipe.name,
            folder=order.run_folder,
            identity=_identify(recipe, data, order),
            classes=recipe.classes,
            remedy=_remedy_of(recipe),
            say=say,
        )
        task = build_task(recipe, data, steps=order.steps, generator=generator, device=device)
        run = Run(task=task, probe=_probe(recipe, data, judge, device), steps=order.steps, place=place, pace=order.pace)
        run.start(resume=order.resume)
        if run.done < run.steps:
            say(_begun(recipe, order))
        run.finish()
        return copy.deepcopy(task.averaged()).cpu()


def build_task(recipe: Recipe, data: DataSet, *, steps: int, generator: torch.Generator, device: torch.device) -> Task:
    """Choose the task by how the recipe is fitted; weights are new, from torch's own generator."""
    match recipe.fit:
        case ClassifierFit():
            return ClassifierTask(recipe, data.train, steps=steps, generator=generator, device=device)
        case VaeFit():
            return AutoencoderTask(recipe, data.train, steps=steps, generator=generator, device=device)
        case GanFit():
            return GanTask(recipe, data.train, steps=steps, generator=generator, device=device)


def _begun(recipe: Recipe, order: Order) -> str:
    """Say what to expect: for its first minute a log has no other line."""
    return (
        f"training {recipe.name}, {order.steps} steps on {order.device}, in {order.run_folder}; the first picture "
        f"comes after {order.pace.first_picture_seconds:g} s, and without a terminal a line follows every "
        f"{order.pace.line_seconds:g} s"
    )


def _probe(recipe: Recipe, data: DataSet, judge: ConvClassifier | None, device: torch.device) -> Probe:
    if judge is None:
        return ClassifierProbe(data, device)
    return GeneratorProbe(data, judge, recipe.classes, recipe.value_range, device)


def _identify(recipe: Recipe, data: DataSet, order: Order) -> dict[str, str]:
    """Name all that the weights depend on, so that a checkpoint of anything else is refused."""
    return {
        "recipe": recipe.name,
        "family": recipe.family,
        "configuration": ", ".join(f"{key}={value}" for key, value in sorted(recipe.config.items())),
        "fit": repr(recipe.fit),
        "data": f"{data.name} {data.digest}",
        "steps": str(order.steps),
        "seed": str(order.seed),
        "device": order.device.type,
        "threads": str(order.threads),
        "torch": torch.__version__,
        "numerics": read_numerics(Settings(device=str(order.device), threads=order.threads)).id,
    }


def _remedy_of(recipe: Recipe) -> str:
    if isinstance(recipe.fit, GanFit):
        return (
            "lower generator_rate and discriminator_rate in the recipe's fit (handlers/recipes/catalogue.py); if the "
            "discriminator's loss has fallen near 0 it knows the pictures by heart, so raise augment_shift or lower "
            "discriminator_features; or try another --seed"
        )
    return "lower the rate in the recipe's fit (handlers/recipes/catalogue.py), or try another --seed"
