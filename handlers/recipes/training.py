"""From a recipe's name to a model folder: train, measure, and write weights, golden samples and card.

The card is written last, so a folder whose card and weights do not belong together was interrupted, and says so by its
digest when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from handlers.card import (
    CARD_FILE,
    Card,
    CardError,
    Family,
    Golden,
    Limits,
    Problem,
    Quality,
    Sample,
    Weights,
    check_weights,
    file_digest,
    load_card,
    write_card,
)
from handlers.card import Recipe as CardRecipe
from handlers.golden import GOLDEN_COUNT, record_golden
from handlers.models import load_family
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import Autoencoder
from handlers.pixels import Uint8s, floats_to_uint8
from handlers.recipes.catalogue import DATA_LICENCE, Recipe
from handlers.recipes.classifiers import train_classifier
from handlers.recipes.digits import Digits, load_split_digits
from handlers.recipes.fitting import one_thread
from handlers.recipes.generators import train_vae
from handlers.recipes.quality import (
    measure_classifier,
    measure_conditional,
    measure_training_value,
    measure_unconditional,
)
from handlers.weights import load_weights

__all__ = ["load_judge", "measure_model", "train_model", "train_module"]

_VERSION = "1.0"
_WEIGHTS_FILE, _GOLDEN_FILE = "weights.safetensors", "golden.safetensors"
_VALUE_RANGE = (0.0, 1.0)
_LIMITS = Limits(max_count=100_000_000, max_labels=100_000, max_exec_batch=256)


def train_model(
    recipe: Recipe, folder: Path, *, judge_folder: Path, steps: int, seed: int, device: torch.device
) -> Card:
    """Train a model, measure it, and write its folder.

    Args:
        recipe: which model.
        folder: where it goes; made when absent, files in it are replaced.
        judge_folder: the classifier's folder; read for generators only.
        steps: optimiser steps.
        seed: of everything random.
        device: where to train. Everything is measured on one thread of the CPU.

    Raises:
        CardError: the classifier's folder is not whole.
    """
    data = load_split_digits()
    judge = load_judge(judge_folder) if recipe.samples else None
    module = train_module(recipe, data, judge, steps=steps, seed=seed, device=device)
    with one_thread():
        quality = _measure(data, module, judge, seed, quick=False)
        return _write(recipe, folder, data, module, quality, steps, seed)


def train_module(
    recipe: Recipe, data: Digits, judge: ConvClassifier | None, *, steps: int, seed: int, device: torch.device
) -> Autoencoder | ConvClassifier:
    """Train the module alone.

    Args:
        recipe: which model.
        data: what to train on.
        judge: labels samples for the progress bar; None for a classifier.
        steps: optimiser steps.
        seed: of everything random.
        device: where to train.

    Returns:
        The module with averaged weights, on the CPU.
    """
    if judge is None:
        return train_classifier(data, data.train, steps=steps, seed=seed, device=device)
    return train_vae(data, judge, conditional=bool(recipe.classes), steps=steps, seed=seed, device=device)


def load_judge(folder: Path) -> ConvClassifier:
    """Load the trained classifier that generators are measured by.

    Raises:
        CardError: it is not whole, or no classifier; `fount train digits-classifier` makes one.
    """
    card = load_card(folder)
    judge = _load_module(card, folder)
    if not isinstance(judge, ConvClassifier):
        problem = Problem(key="family.name", wrong=f"{card.family.name} labels nothing", remedy="name a classifier")
        raise CardError(folder / CARD_FILE, [problem])
    return judge


def measure_model(folder: Path, judge_folder: Path, *, quick: bool = False) -> tuple[Quality, ...]:
    """Measure a model folder again, as its recipe did; the model is not trained and nothing is written.

    Args:
        folder: the model's, with card and weights.
        judge_folder: the classifier's folder; read for generators only.
        quick: leave out what trains classifiers on samples, which takes minutes.

    Raises:
        CardError: a folder is not whole.
    """
    card = load_card(folder)
    module = _load_module(card, folder)
    judge = None if isinstance(module, ConvClassifier) else load_judge(judge_folder)
    with one_thread():
        return _measure(load_split_digits(), module, judge, card.recipe.seed, quick=quick)


def _load_module(card: Card, folder: Path) -> Autoencoder | ConvClassifier:
    check_weights(card, folder)
    module = load_family(card.family.name, card.family.config)
    assert isinstance(module, Autoencoder | ConvClassifier)
    load_weights(module, folder / card.weights.file)
    return module.eval()


def _measure(
    data: Digits, module: Autoencoder | ConvClassifier, judge: ConvClassifier | None, seed: int, *, quick: bool
) -> tuple[Quality, ...]:
    if isinstance(module, ConvClassifier) or judge is None:
        assert isinstance(module, ConvClassifier)
        return measure_classifier(data, module)
    if not module.config.classes:
        return measure_unconditional(data, module, judge)
    accuracy, spread = measure_conditional(data, module, judge)
    return (accuracy, spread) if quick else (accuracy, measure_training_value(data, module, seed=seed), spread)


def _write(
    recipe: Recipe,
    folder: Path,
    data: Digits,
    module: nn.Module,
    quality: tuple[Quality, ...],
    steps: int,
    seed: int,
) -> Card:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / _WEIGHTS_FILE
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, weights)
    origin = CardRecipe(name=recipe.name, seed=seed, steps=steps, data="digits", data_digest=data.digest)
    card = _describe(recipe, origin, quality, Weights(file=_WEIGHTS_FILE, digest=file_digest(weights)))
    record_golden(card, module, folder / _GOLDEN_FILE, images=None if recipe.samples else _golden_images(data))
    for file in (weights, folder / _GOLDEN_FILE):
        file.chmod(0o644)  # safetensors writes for the owner alone; a worker may be another user
    write_card(card, folder)
    return card


def _describe(recipe: Recipe, origin: CardRecipe, quality: tuple[Quality, ...], weights: Weights) -> Card:
    classes = recipe.classes
    return Card(
        name=recipe.name,
        version=_VERSION,
        description=recipe.description,
        family=Family(name=recipe.family, config=dict(recipe.config)),
        operations=recipe.operations,
        classes=classes,
        prior=(1 / len(classes),) * len(classes) if recipe.samples and classes else (),
        sample=_sample_of(recipe.config),
        parameters=recipe.parameters,
        encodings=("UINT8", "FLOAT32", "PNG") if recipe.samples else (),
        limits=_LIMITS,
        precisions=recipe.precisions,
        recipe=origin,
        quality=quality,
        data_licence=DATA_LICENCE,
        intended_use=recipe.intended_use,
        weights=weights,
        golden=Golden(file=_GOLDEN_FILE),
    )


def _sample_of(config: Mapping[str, int]) -> Sample:
    return Sample(
        modality="image",
        height=config["height"],
        width=config["width"],
        channels=config["channels"],
        value_range=_VALUE_RANGE,
    )


def _golden_images(data: Digits) -> Uint8s:
    """Give the first test rows, (64, H, W, C) uint8."""
    images = data.test.images[:GOLDEN_COUNT].permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return floats_to_uint8(images.numpy(), _VALUE_RANGE)
