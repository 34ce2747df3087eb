"""Train a model by its recipe: run the training with checkpoints, measure the result, and write the model folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from handlers.cards.card import Card
from handlers.execution.numerics import read_numerics
from handlers.recipes.catalogue import Recipe
from handlers.recipes.data.load import TrainingData, check_classes, load_data
from handlers.recipes.model_folder import Evaluator, load_evaluator, write_model
from handlers.recipes.quality.metrics import measure
from handlers.recipes.run.checkpoints import lock_folder
from handlers.recipes.run.probes import ClassifierProbe, GeneratorProbe, Probe
from handlers.recipes.run.reproducible import reproducible
from handlers.recipes.run.run import Run, RunContext, Schedule
from handlers.recipes.tasks.autoencoders import AutoencoderTask
from handlers.recipes.tasks.classifiers import ClassifierTask
from handlers.recipes.tasks.gans import GanTask
from handlers.recipes.tasks.task import ClassifierFit, GanFit, Task, VaeFit
from handlers.settings import Settings

__all__ = ["TrainingOptions", "build_task", "train_model", "train_module"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of one training.

    Attributes:
        steps: optimiser steps.
        seed: of everything random.
        run_folder: for checkpoints and pictures.
        resume: continue from its newest checkpoint.
        device: where to train.
        threads: torch's.
        schedule: times of checkpoints, pictures and lines.
    """

    steps: int
    seed: int
    run_folder: Path
    resume: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    schedule: Schedule = field(default_factory=Schedule)


def train_model(
    recipe: Recipe,
    folder: Path,
    options: TrainingOptions,
    *,
    data_folder: Path | None,
    evaluator_folder: Path | None,
    log: Callable[[str], None],
) -> Card:
    """Train a model, measure it, and write its folder.

    Args:
        recipe: which model.
        folder: of the model; created when absent, its files are replaced.
        options: length, seed, run folder and device.
        data_folder: of data sets that are files.
        evaluator_folder: of the evaluator classifier; None for a classifier.
        log: called with every progress message.

    Raises:
        CardError: the classifier's folder is damaged, or the classifier does not read these data.
        DataError: the data are missing or damaged, or lack a class.
        CheckpointError: the run folder belongs to another run, or all its checkpoints are damaged.
        TrainingFailed: training diverged or collapsed.
        TrainingInterrupted: it was stopped before its last step.
    """
    data = load_data(recipe.data, data_folder)
    check_classes(data)
    evaluator = load_evaluator(evaluator_folder, data) if evaluator_folder else None
    module = train_module(recipe, data, evaluator, options, log=log)
    log(f"{recipe.name} is trained; measuring it{', which takes minutes' if recipe.samples else ''}")
    conditional = bool(recipe.classes)
    quality = measure(
        data, module, evaluator, conditional=conditional, value_range=recipe.value_range, seed=options.seed
    )
    return write_model(recipe, folder, data, module, quality, steps=options.steps, seed=options.seed)


def train_module(
    recipe: Recipe,
    data: TrainingData,
    evaluator: Evaluator | None,
    options: TrainingOptions,
    *,
    log: Callable[[str], None],
) -> nn.Module:
    """Train or continue a module, without measuring it.

    Args:
        recipe: which model.
        data: to train on.
        evaluator: labels samples for snapshots; None for a classifier.
        options: length, seed, run folder and device.
        log: called with every progress message.

    Returns:
        The module with averaged weights, on the CPU, in evaluation mode.

    Raises:
        CheckpointError, TrainingFailed, TrainingInterrupted: as in `train_model`.
    """
    device, folder = options.device, options.run_folder
    with reproducible(options.seed, threads=options.threads, device=device) as generator, lock_folder(folder):
        context = RunContext(
            name=recipe.name,
            folder=folder,
            identity=_identify(recipe, data, options),
            classes=recipe.classes,
            remedy=_remedy_for(recipe),
            log=log,
        )
        task = build_task(recipe, data, steps=options.steps, generator=generator, device=device)
        probe: Probe = ClassifierProbe(data, device)
        if evaluator is not None:
            probe = GeneratorProbe(data, evaluator.classifier, recipe.classes, recipe.value_range, device)
        run = Run(task=task, probe=probe, steps=options.steps, context=context, schedule=options.schedule)
        run.start(resume=options.resume)
        if run.done < run.steps:
            log(
                f"training {recipe.name}, {options.steps} steps on {device}, in {folder}; the first picture follows "
                f"after {options.schedule.first_picture_seconds:g} s, and without a terminal a line every "
                f"{options.schedule.line_seconds:g} s"
            )
        run.finish()
        return copy.deepcopy(task.averaged()).cpu()


def build_task(
    recipe: Recipe, data: TrainingData, *, steps: int, generator: torch.Generator, device: torch.device
) -> Task:
    """Create the task of a recipe's fit; initial weights are drawn from torch's own generator.

    Args:
        recipe: family, configuration and fit.
        data: to train on.
        steps: of the whole training.
        generator: of batches, noise and augmentation.
        device: where to train.
    """
    match recipe.fit:
        case ClassifierFit():
            return ClassifierTask(recipe, data.train, steps=steps, generator=generator, device=device)
        case VaeFit():
            return AutoencoderTask(recipe, data.train, steps=steps, generator=generator, device=device)
        case GanFit():
            return GanTask(recipe, data.train, steps=steps, generator=generator, device=device)


def _identify(recipe: Recipe, data: TrainingData, options: TrainingOptions) -> dict[str, str]:
    """Name everything the weights depend on, so that a checkpoint of another run is refused."""
    return {
        "recipe": recipe.name,
        "family": recipe.family,
        "configuration": ", ".join(f"{key}={value}" for key, value in sorted(recipe.config.items())),
        "fit": repr(recipe.fit),
        "data": f"{data.name} {data.digest}",
        "steps": str(options.steps),
        "seed": str(options.seed),
        "device": options.device.type,
        "threads": str(options.threads),
        "torch": torch.__version__,
        "numerics": read_numerics(Settings(device=str(options.device), threads=options.threads)).id,
    }


def _remedy_for(recipe: Recipe) -> str:
    if isinstance(recipe.fit, GanFit):
        return (
            "lower generator_rate and discriminator_rate in the recipe's fit (handlers/recipes/catalogue.py); if the "
            "discriminator's loss has fallen near 0 it has memorised the pictures, so raise augment_shift or lower "
            "discriminator_features; or try another --seed"
        )
    return "lower the rate in the recipe's fit (handlers/recipes/catalogue.py), or try another --seed"
