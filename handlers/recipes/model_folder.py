"""Model folders of recipes: a trained module and what was measured become card, weights and golden samples, and back.

Files are written beside and renamed, weights first and the card last. A card names its weights' digest, so a folder
whose writing was ended in between says so when it is loaded; before the first rename it is the folder it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from handlers.cards.card import (
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
    load_card,
    write_card,
)
from handlers.cards.card import Recipe as CardRecipe
from handlers.cards.digests import check_weights, file_digest
from handlers.execution.pixels import Uint8s, floats_to_uint8
from handlers.loading.build import build_module
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import Recipe
from handlers.recipes.data.dataset import DataSet
from handlers.recipes.run.checkpoints import write_whole
from handlers.verification.golden import GOLDEN_COUNT, record_golden

__all__ = ["load_judge", "load_module", "write_model"]

_VERSION = "1.0"
_WEIGHTS_FILE, _GOLDEN_FILE = "weights.safetensors", "golden.safetensors"
_LIMITS = Limits(max_count=100_000_000, max_labels=100_000, max_exec_batch=256)


def write_model(
    recipe: Recipe,
    folder: Path,
    data: DataSet,
    module: nn.Module,
    quality: tuple[Quality, ...],
    *,
    steps: int,
    seed: int,
) -> Card:
    """Write a trained model's folder.

    Args:
        recipe: how it was trained.
        folder: made when absent; the three files in it are replaced, others stay.
        data: what it was trained on.
        module: the family's module, on the CPU, in evaluation mode; of a GAN the generator alone.
        quality: what was measured.
        steps: optimiser steps it was trained for.
        seed: of the training.

    Returns:
        The card written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        beside = Path(name)
        weights = beside / _WEIGHTS_FILE
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, weights)
        origin = CardRecipe(name=recipe.name, seed=seed, steps=steps, data=data.name, data_digest=data.digest)
        card = _describe(recipe, origin, data, quality, Weights(file=_WEIGHTS_FILE, digest=file_digest(weights)))
        images = None if recipe.samples else _golden_images(data, recipe.value_range)
        record_golden(card, module, beside / _GOLDEN_FILE, images=images)
        write_card(card, beside)
        for file in (_WEIGHTS_FILE, _GOLDEN_FILE, CARD_FILE):
            write_whole(folder / file, (beside / file).read_bytes())
            (folder / file).chmod(0o644)  # whoever trained it: a worker may be another user
    return card


def load_module(card: Card, folder: Path) -> nn.Module:
    """Load a model's module with its weights, in evaluation mode, whichever way it came in.

    Raises:
        CardError: the weights file is absent or another than the card names.
        BuildError: the module cannot be built.
        WeightsError: the weights do not fit it.
    """
    check_weights(card, folder)
    return build_module(card, folder).eval()


def load_judge(folder: Path, data: DataSet) -> ConvClassifier:
    """Load the trained classifier that generators are measured by.

    Args:
        folder: its own.
        data: what it is to label.

    Raises:
        CardError: it is not whole, no classifier, or not one that reads these data.
        BuildError: as in `load_module`.
        WeightsError: as in `load_module`.
    """
    card = load_card(folder)
    judge = load_module(card, folder)
    if not isinstance(judge, ConvClassifier):
        problem = Problem(key="family.name", wrong=f"{card.family.name} labels nothing", remedy="name a classifier")
        raise CardError(folder / CARD_FILE, [problem])
    if problems := list(_misfits(card, judge, data)):
        raise CardError(folder / CARD_FILE, problems)
    return judge


def _misfits(card: Card, judge: ConvClassifier, data: DataSet) -> Iterator[Problem]:
    """Compare what a classifier reads with data, which lie in [0, 1]."""
    config, remedy = judge.config, f"name a classifier of {data.name}"
    reads = (config.channels, config.height, config.width, config.classes)
    there = (*data.test.images.shape[1:], len(data.classes))
    if reads != there:
        told = "{2}×{1}×{0} pixels and {3} classes"
        wrong = f"reads {told.format(*reads)}, {data.name} has {told.format(*there)}"
        yield Problem(key="family.config", wrong=wrong, remedy=remedy)
    if card.sample.value_range != (0.0, 1.0):
        yield Problem(key="sample.value_range", wrong="is not [0.0, 1.0], as data are", remedy=remedy)


def _describe(
    recipe: Recipe, origin: CardRecipe, data: DataSet, quality: tuple[Quality, ...], weights: Weights
) -> Card:
    classes = recipe.classes
    return Card(
        name=recipe.name,
        version=_VERSION,
        description=recipe.description,
        family=Family(name=recipe.family, config=dict(recipe.config)),
        operations=recipe.operations,
        classes=classes,
        prior=(1 / len(classes),) * len(classes) if recipe.samples and classes else (),
        sample=_sample_of(recipe.config, recipe.value_range),
        parameters=recipe.parameters,
        encodings=("UINT8", "FLOAT32", "PNG") if recipe.samples else (),
        limits=_LIMITS,
        precisions=recipe.precisions,
        recipe=origin,
        quality=quality,
        data_licence=data.licence,
        intended_use=recipe.intended_use,
        weights=weights,
        golden=Golden(file=_GOLDEN_FILE),
    )


def _sample_of(config: Mapping[str, int | str], value_range: tuple[float, float]) -> Sample:
    height, width, channels = (int(config[key]) for key in ("height", "width", "channels"))
    return Sample(modality="image", height=height, width=width, channels=channels, value_range=value_range)


def _golden_images(data: DataSet, value_range: tuple[float, float]) -> Uint8s:
    """Give the first test rows, (64, H, W, C) uint8."""
    assert value_range == (0.0, 1.0), "data sets lie in [0, 1], and so do the pictures classifiers read"
    images = data.test.images[:GOLDEN_COUNT].permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return floats_to_uint8(images.numpy(), value_range)
