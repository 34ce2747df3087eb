"""Measure the quality of a model folder, of a recipe or of a user's own, as its card describes it.

A folder enters; the quality entries for its card leave. The card or the caller names the data set and the evaluator
classifier. A generator runs as in a worker: with the card's default parameters, and its pictures are checked, so that
what is measured is what a request without parameters receives.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from fount.v1 import sampling_pb2
from handlers.cards.card import Card, Quality, load_card
from handlers.execution.errors import describe_error
from handlers.execution.pixels import find_rows_within
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.loading.build import is_custom
from handlers.recipes.catalogue import RECIPES, classifier_of
from handlers.recipes.data.load import DATA_SETS, TrainingData, check_classes, load_data
from handlers.recipes.model_folder import Evaluator, load_evaluator, load_module
from handlers.recipes.quality.metrics import SAMPLES, measure
from handlers.worker.requests import read_draw

__all__ = ["MeasurementError", "ModelMeasurer", "ServedSampler"]


class MeasurementError(Exception):
    """A model cannot be measured, or not with these data or this evaluator. The message says what to do."""


class ModelMeasurer:
    """Measures models one after another; each data set is read once."""

    def __init__(
        self, *, data: Path, model_store: Path, data_set: str | None = None, evaluator: str | None = None
    ) -> None:
        """Store the options; nothing is read yet.

        Args:
            data: folder of data sets that are files.
            model_store: folder of the evaluator classifiers.
            data_set: measure with this one; None is the one a card names.
            evaluator: a classifier of the store; None is the one trained on the data set.
        """
        self._folder, self._store, self._data_set, self._evaluator = data, model_store, data_set, evaluator
        self._data: dict[str, TrainingData] = {}

    def measure_folder(self, folder: Path, *, quick: bool) -> tuple[Quality, ...]:
        """Measure the model of a folder; `quick` leaves out metrics that train classifiers.

        Raises:
            MeasurementError: data and model do not fit, the card names no data, or the model fails to sample.
            DataError: the data cannot be read, or lack a class.
            CardError: a folder is damaged.
            BuildError: a module cannot be built.
            WeightsError: weights do not fit their module.
        """
        card = load_card(folder)
        if "TRANSFORM" in card.operations:
            raise MeasurementError(
                f"{card.name} transforms images, and learned nothing that could be measured; name a generator or a "
                "classifier"
            )
        data = self._load_data(card)
        if wrong := "; ".join(_differences(card, data)):
            raise MeasurementError(
                f"{card.name} cannot be measured on {data.name}: {wrong}; name other data with --data-set"
            )
        if is_custom(card) and not (folder / card.golden.file).is_file():
            raise MeasurementError(
                f"{card.name} has no golden samples yet; run: fount check {shlex.quote(str(folder))}"
            )
        makes_images = card.sample.modality == "image" and bool({"SAMPLE", "DECODE"} & set(card.operations))
        recipe = RECIPES.get(card.recipe.name) if card.recipe else None
        is_judged = makes_images or (recipe is not None and recipe.evaluator is not None)
        evaluator = self._load_evaluator(data) if is_judged else None
        module = load_module(card, folder)
        sampler = ServedSampler(module, card, folder) if isinstance(module, Sampler) else None
        seed = card.recipe.seed if card.recipe else 0
        conditional, value_range = bool(card.classes), card.sample.value_range
        return measure(
            data,
            module,
            evaluator,
            operations=card.operations,
            conditional=conditional,
            value_range=value_range,
            seed=seed,
            directions=card.directions,
            sampler=sampler,
            quick=quick,
            count=_samples_of(card),
        )

    def _load_data(self, card: Card) -> TrainingData:
        name = self._data_set or (card.recipe.data if card.recipe else None)
        if name is None or name not in DATA_SETS:
            wrong = f"names data {name!r}" if name else "does not name the data it was trained on"
            known = ", ".join(DATA_SETS)
            raise MeasurementError(f"{card.name}: its card {wrong}; name data of its kind with --data-set ({known})")
        if name not in self._data:
            data = load_data(name, self._folder)
            check_classes(data)
            self._data[name] = data
        data = self._data[name]
        if self._data_set is None and card.recipe and card.recipe.data_digest != data.digest:
            raise MeasurementError(
                f"{card.name} was trained on {name} of digest {card.recipe.data_digest}, these are {data.digest}; name "
                f"the folder it was trained on with --data, or measure it on these with --data-set {name}"
            )
        return data

    def _load_evaluator(self, data: TrainingData) -> Evaluator:
        name = self._evaluator or classifier_of(data.name).name
        if not (self._store / name).is_dir():
            remedy = f"name the folder that has it with --model-store, or run: fount train {shlex.quote(name)}"
            raise MeasurementError(f"{self._store} has no {name} to evaluate samples; {remedy}")
        return load_evaluator(self._store / name, data)


class ServedSampler(nn.Module):
    """A sampler with its card's default parameters, which refuses pictures that a worker would not send."""

    def __init__(self, module: Sampler, card: Card, folder: Path) -> None:
        """Wrap a module with its weights, on the CPU, in evaluation mode; the folder is for messages."""
        super().__init__()
        self._sampler, self._card, self._folder = module, card, folder
        self._draw = read_draw(sampling_pb2.Parameters(), card)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Fail: it wraps an existing module.

        Raises:
            ValueError: always.
        """
        raise ValueError("a wrapped sampler is not built from a configuration")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture a row as `Sampler.sample` does, with the card's defaults; `draw` has no parameter.

        Raises:
            MeasurementError: the module failed, or its pictures do not fit its card.
        """
        assert draw == Draw(), "requests without parameters are measured"
        try:
            images = self._sampler.sample(noise, labels, self._draw, deadline)
        except Exception as error:  # a user's module may raise anything
            raise self._error(f"failed with {describe_error(error)}") from error
        size = self._card.sample
        shape = (len(noise.addresses), *size.tensor_shape)
        if tuple(images.shape) != shape:
            raise self._error(f"returned pictures of shape {tuple(images.shape)}, its card requires {shape}")
        if not find_rows_within(images.float().cpu().numpy(), size.value_range).all():
            low, high = size.value_range
            raise self._error(f"returned pictures that are not finite or not within [{low:g}, {high:g}]")
        return images

    def _error(self, problem: str) -> MeasurementError:
        return MeasurementError(f"{self._card.name} {problem}; run: fount check {shlex.quote(str(self._folder))}")


def _samples_of(card: Card) -> int:
    """Return how many samples a model is measured with: as many as its recipe names."""
    recipe = RECIPES.get(card.recipe.name) if card.recipe else None
    return SAMPLES if recipe is None else recipe.measured_samples


def _differences(card: Card, data: TrainingData) -> Iterator[str]:
    size, of_data = card.sample.tensor_shape, tuple(data.test.images.shape[1:])
    if size != of_data:
        yield f"its samples are {_describe(size)}, those of the data {_describe(of_data)}"
    only_translates = card.operations == ("TRANSLATE",)  # whose classes are directions
    if card.classes and not only_translates and len(card.classes) != len(data.classes):
        yield f"it has {len(card.classes)} classes, the data have {len(data.classes)}"


def _describe(shape: tuple[int, ...]) -> str:
    """Format the shape of an image, (C, H, W), or of a point or text, (length,)."""
    if len(shape) == 1:
        return f"rows of {shape[0]} values"
    channels, height, width = shape
    return f"pictures of {height}×{width}×{channels}"
