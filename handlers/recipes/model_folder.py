"""Model folders of recipes: write card, weights and golden samples of a trained module, and load them again.

Files are replaced atomically, the weights first and the card last. A card names its weights' digest, so a folder whose
writing was interrupted is detected when it is loaded; before the first file is replaced it is unchanged.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import nn

from fount.files import atomic_write
from handlers.cards.card import (
    CARD_FILE,
    Card,
    CardError,
    Direction,
    Family,
    Golden,
    Input,
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
from handlers.family import Encoder
from handlers.loading.build import build_module
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import Recipe
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.reductions import reduce_images
from handlers.recipes.latents import encode_rows, latent_spread
from handlers.verification.golden import GOLDEN_COUNT, record_golden

__all__ = ["Evaluator", "load_evaluator", "load_module", "write_model"]

_VERSION = "1.0"
_WEIGHTS_FILE, _GOLDEN_FILE = "weights.safetensors", "golden.safetensors"
_MAX_COUNT, _MAX_LABELS = 100_000_000, 100_000


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """The classifier that generators are measured with, on the CPU in evaluation mode, and its folder's name."""

    name: str
    classifier: ConvClassifier


def write_model(
    recipe: Recipe,
    folder: Path,
    data: TrainingData,
    module: nn.Module,
    quality: tuple[Quality, ...],
    *,
    directions: tuple[Direction, ...] = (),
    steps: int,
    seed: int,
) -> Card:
    """Write a trained model's folder.

    Args:
        recipe: how it was trained.
        folder: created when absent; the three files in it are replaced, others stay.
        data: what it was trained on.
        module: on the CPU, in evaluation mode; of a GAN the generator alone.
        quality: measured, for the card.
        directions: of its latent space, for the card.
        steps: of its training.
        seed: of its training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        staging = Path(name)
        weights = staging / _WEIGHTS_FILE
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, weights)
        origin = CardRecipe(name=recipe.name, seed=seed, steps=steps, data=data.name, data_digest=data.digest)
        card = _describe(recipe, origin, data, quality, Weights(file=_WEIGHTS_FILE, digest=file_digest(weights)))
        if isinstance(module, Encoder) and "ENCODE" in recipe.operations:
            labels = data.train.labels if recipe.classes else None
            latents = encode_rows(module, data.train.images, labels)
            spread = latent_spread(latents)
            card = replace(card, latent_dim=latents.shape[1], latent_spread=spread, directions=directions)
        images = None if recipe.samples else _golden_images(data, recipe.given_shape)
        record_golden(card, copy.deepcopy(module), staging / _GOLDEN_FILE, images=images)
        write_card(card, staging)
        for file in (_WEIGHTS_FILE, _GOLDEN_FILE, CARD_FILE):
            atomic_write(folder / file, (staging / file).read_bytes())
            (folder / file).chmod(0o644)  # a worker may run as another user
    return card


def load_module(card: Card, folder: Path) -> nn.Module:
    """Load a model's module with its weights, in evaluation mode.

    Raises:
        CardError: the weights file is missing or differs from the card's digest.
        BuildError: the module cannot be built.
        WeightsError: the weights do not fit it.
    """
    check_weights(card, folder)
    return build_module(card, folder).eval()


def load_evaluator(folder: Path, data: TrainingData) -> Evaluator:
    """Load the trained classifier that generators of a data set are measured with.

    Raises:
        CardError: the folder is damaged, or its model is not a classifier that reads these data.
        BuildError: as in `load_module`.
        WeightsError: as in `load_module`.
    """
    card = load_card(folder)
    module = load_module(card, folder)
    if not isinstance(module, ConvClassifier):
        problem = Problem(key="family.name", wrong=f"{card.family.name} labels nothing", remedy="name a classifier")
        raise CardError(folder / CARD_FILE, [problem])
    if problems := list(_mismatches(card, module, data)):
        raise CardError(folder / CARD_FILE, problems)
    return Evaluator(name=folder.name, classifier=module)


def _mismatches(card: Card, classifier: ConvClassifier, data: TrainingData) -> Iterator[Problem]:
    """Compare a classifier's input and classes with data, whose pixels are in [0, 1]."""
    config, remedy = classifier.config, f"name a classifier of {data.name}"
    reads = (config.channels, config.height, config.width, config.classes)
    actual = (*data.test.images.shape[1:], len(data.classes))
    if reads != actual:
        text = "{2}×{1}×{0} pixels and {3} classes"
        wrong = f"reads {text.format(*reads)}, {data.name} has {text.format(*actual)}"
        yield Problem(key="family.config", wrong=wrong, remedy=remedy)
    if card.sample.value_range != (0.0, 1.0):
        yield Problem(key="sample.value_range", wrong="is not [0.0, 1.0], the range of the data", remedy=remedy)


def _describe(
    recipe: Recipe, origin: CardRecipe, data: TrainingData, quality: tuple[Quality, ...], weights: Weights
) -> Card:
    classes, given = recipe.classes, recipe.given_shape
    encodings: tuple[Literal["UINT8", "FLOAT32", "PNG"], ...] = ("UINT8", "FLOAT32", "PNG") if recipe.draws else ()
    if recipe.modality == "image":
        height, width, channels = (int(recipe.config[key]) for key in ("height", "width", "channels"))
        sample = Sample(modality="image", height=height, width=width, channels=channels, value_range=recipe.value_range)
    else:
        sample = Sample(modality=recipe.modality, length=recipe.length, value_range=recipe.value_range)
        encodings = ("UINT8",) if recipe.modality == "text" else ("FLOAT32",)
    return Card(
        name=recipe.name,
        version=_VERSION,
        description=recipe.description,
        family=Family(name=recipe.family, config=dict(recipe.config)),
        operations=recipe.operations,
        classes=classes,
        prior=(1 / len(classes),) * len(classes) if recipe.samples and classes else (),
        sample=sample,
        input=None if given is None else Input(channels=given[0], height=given[1], width=given[2]),
        score_columns=recipe.score_columns,
        parameters=recipe.parameters,
        draw_steps=recipe.draw_steps,
        conditions=recipe.conditions,
        prefix_unit=recipe.prefix_unit,
        encodings=encodings,
        limits=Limits(max_count=_MAX_COUNT, max_labels=_MAX_LABELS, max_exec_batch=recipe.max_exec_batch),
        precisions=recipe.precisions,
        recipe=origin,
        quality=quality,
        data_licence=data.licence,
        intended_use=recipe.intended_use,
        weights=weights,
        golden=Golden(file=_GOLDEN_FILE),
    )


def _golden_images(data: TrainingData, shape: tuple[int, int, int] | None) -> Uint8s:
    """Select the first test rows, reduced to a shape if there is one: (64, H, W, C) uint8."""
    images = data.test.images[:GOLDEN_COUNT]
    read = images if shape is None else reduce_images(images, shape)
    return floats_to_uint8(read.permute(0, 2, 3, 1).numpy(), (0.0, 1.0))  # (N, C, H, W) -> (N, H, W, C)
