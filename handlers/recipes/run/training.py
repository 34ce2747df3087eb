"""Train a model by its recipe: run the training with checkpoints, measure the result, and write the model folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from handlers.cards.card import Card, Direction, load_card
from handlers.cards.digests import check_weights
from handlers.execution.numerics import read_numerics
from handlers.family import Draw, Encoder
from handlers.models import load_family
from handlers.models.autoencoder import SamplingAutoencoder
from handlers.recipes.catalogue import (
    AutoencoderFit,
    AutoregressiveFit,
    BorrowedFit,
    ClassifierFit,
    CycleGanFit,
    DiffusionFit,
    GanFit,
    ImageDiffusionFit,
    ImageRegressionFit,
    KnownLawFit,
    MixtureFit,
    PointGanFit,
    PrincipalFit,
    Recipe,
    StandardVaeFit,
    VaeFit,
    VaeGanFit,
)
from handlers.recipes.data.load import TrainingData, check_classes, load_data
from handlers.recipes.latents import encode_rows
from handlers.recipes.model_folder import Evaluator, load_evaluator, load_module, write_model
from handlers.recipes.quality.attributes import find_directions
from handlers.recipes.quality.metrics import measure
from handlers.recipes.reproducible import reproducible
from handlers.recipes.run.checkpoints import lock_folder
from handlers.recipes.run.likelihood_probe import LikelihoodProbe, TextProbe
from handlers.recipes.run.loop import Run, TrainingOptions
from handlers.recipes.run.probes import (
    ClassifierProbe,
    GeneratorProbe,
    PointProbe,
    Probe,
    ReconstructionProbe,
    TranslationProbe,
)
from handlers.recipes.run.unpaired_probe import UnpairedProbe
from handlers.recipes.tasks.autoencoders import AutoencoderTask, PrincipalTask, ReconstructionTask
from handlers.recipes.tasks.autoregressive import AutoregressiveTask
from handlers.recipes.tasks.classifiers import ClassifierTask
from handlers.recipes.tasks.cyclegans import CycleGanTask
from handlers.recipes.tasks.diffusion import DiffusionTask
from handlers.recipes.tasks.gans import GanTask
from handlers.recipes.tasks.mixtures import MixtureTask
from handlers.recipes.tasks.points import KnownLawTask, PointGanTask
from handlers.recipes.tasks.task import Task
from handlers.recipes.tasks.translation import ImageDiffusionTask, ImageRegressionTask
from handlers.recipes.tasks.vae_gan import VaeGanTask
from handlers.recipes.tasks.variational import StandardVaeTask
from handlers.settings import Settings

__all__ = ["borrow_weights", "build_task", "train_model", "train_module"]

_TASKS: Mapping[type, type[Task]] = MappingProxyType(
    {
        AutoencoderFit: ReconstructionTask,
        AutoregressiveFit: AutoregressiveTask,
        ClassifierFit: ClassifierTask,
        CycleGanFit: CycleGanTask,
        DiffusionFit: DiffusionTask,
        GanFit: GanTask,
        ImageDiffusionFit: ImageDiffusionTask,
        ImageRegressionFit: ImageRegressionTask,
        KnownLawFit: KnownLawTask,
        MixtureFit: MixtureTask,
        PointGanFit: PointGanTask,
        PrincipalFit: PrincipalTask,
        StandardVaeFit: StandardVaeTask,
        VaeFit: AutoencoderTask,
        VaeGanFit: VaeGanTask,
    }
)
"""The task of each kind of fit."""


def train_model(
    recipe: Recipe,
    folder: Path,
    options: TrainingOptions,
    *,
    data_folder: Path | None,
    evaluator_folder: Path | None,
    start_folder: Path | None = None,
    log: Callable[[str], None],
) -> Card:
    """Train a model, measure it, and write its folder.

    Args:
        recipe: which model.
        folder: of the model; created when absent, its files are replaced.
        options: of the training.
        data_folder: of data sets that are files.
        evaluator_folder: of the evaluator classifier; None for a classifier.
        start_folder: of the model whose weights the training starts from; None draws them.
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
    if isinstance(recipe.fit, BorrowedFit):
        assert evaluator is not None
        module = borrow_weights(recipe, evaluator)
    else:
        module = train_module(recipe, data, evaluator, options, start_folder=start_folder, log=log)
    if isinstance(module, SamplingAutoencoder):
        module.fit_prior(encode_rows(module, data.train.images))
    log(f"{recipe.name} is trained; measuring it{', which takes minutes' if recipe.samples else ''}")
    conditional = bool(recipe.classes)
    directions: tuple[Direction, ...] = ()
    if recipe.finds_directions:
        assert isinstance(module, Encoder)
        directions = find_directions(module, data.train)
    quality = measure(
        data,
        module,
        evaluator,
        operations=recipe.operations,
        conditional=conditional,
        value_range=recipe.value_range,
        seed=options.seed,
        directions=directions,
        count=recipe.measured_samples,
    )
    return write_model(
        recipe, folder, data, module, quality, directions=directions, steps=options.steps, seed=options.seed
    )


def borrow_weights(recipe: Recipe, evaluator: Evaluator) -> nn.Module:
    """Build the module of a recipe whose weights are those of its evaluator classifier, in evaluation mode."""
    module = load_family(recipe.family, recipe.config)
    assert isinstance(module, nn.Module)
    module.load_state_dict(evaluator.classifier.state_dict())
    return module.eval()


def train_module(
    recipe: Recipe,
    data: TrainingData,
    evaluator: Evaluator | None,
    options: TrainingOptions,
    *,
    start_folder: Path | None = None,
    log: Callable[[str], None],
) -> nn.Module:
    """Train or continue a module, without measuring it; arguments and errors as in `train_model`.

    Returns:
        The module with averaged weights, on the CPU, in evaluation mode.
    """
    device, folder = options.device, options.run_folder
    with reproducible(options.seed, threads=options.threads, device=device) as generator, lock_folder(folder):
        task = build_task(recipe, data, steps=options.steps, generator=generator, device=device)
        identity = _identify(recipe, data, options)
        if start_folder is not None:
            identity["start"] = _start_from(task, start_folder)
        probe: Probe
        if isinstance(recipe.fit, AutoregressiveFit):
            of_kind = TextProbe if recipe.modality == "text" else LikelihoodProbe
            probe = of_kind(data, recipe.classes, recipe.value_range, device)
        elif recipe.modality == "vector":
            probe = PointProbe(data, recipe.value_range, device)
        elif isinstance(recipe.fit, AutoencoderFit | PrincipalFit):
            noise = recipe.fit.noise if isinstance(recipe.fit, AutoencoderFit) else 0.0
            probe = ReconstructionProbe(data, noise, device)
        elif isinstance(recipe.fit, DiffusionFit) and evaluator is not None:
            probe = GeneratorProbe(
                data,
                evaluator.classifier,
                recipe.classes,
                recipe.value_range,
                device,
                count=recipe.fit.probed_samples,
                parameters=Draw(steps=recipe.fit.probed_steps),
            )
        elif recipe.given_shape is not None:
            probe = TranslationProbe(data, recipe.given_shape, recipe.value_range, device)
        elif isinstance(recipe.fit, CycleGanFit) and evaluator is not None:
            probe = UnpairedProbe(data, evaluator.classifier, device)
        elif evaluator is None:
            probe = ClassifierProbe(data, device)
        else:
            probe = GeneratorProbe(data, evaluator.classifier, recipe.classes, recipe.value_range, device)
        run = Run(recipe=recipe, task=task, probe=probe, options=options, identity=identity, log=log)
        run.start()
        if run.done < options.steps:
            log(
                f"training {recipe.name}, {options.steps} steps on {device}, in {folder}; the first picture follows "
                f"after {options.first_picture_seconds:g} s, and without a terminal a line every "
                f"{options.line_seconds:g} s"
            )
        run.finish()
        return copy.deepcopy(task.averaged()).cpu()


def _start_from(task: Task, folder: Path) -> str:
    """Start a task with the weights of a model folder, and return their digest."""
    assert isinstance(task, ImageDiffusionTask)
    card = load_card(folder)
    task.start_from(load_module(card, folder).state_dict())
    return check_weights(card, folder)


def build_task(
    recipe: Recipe, data: TrainingData, *, steps: int, generator: torch.Generator, device: torch.device
) -> Task:
    """Create the task of a recipe's fit, on the training rows of its data; arguments as in `Task`."""
    kind = _TASKS[type(recipe.fit)]
    return kind(recipe, data.train, steps=steps, generator=generator, device=device)


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
