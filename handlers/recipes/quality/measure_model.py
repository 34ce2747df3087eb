"""Measures a model folder again, of a recipe or of one's own, as its card describes it; nothing is trained or written.

A folder enters; the entries of its card leave. Which data and which classifier a model is measured by, its card says,
or whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from fount.v1 import sampling_pb2
from handlers.cards.card import Card, Quality, load_card
from handlers.execution.pixels import find_rows_within
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.loading.build import is_custom
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import classifier_of
from handlers.recipes.data.dataset import DataSet, check_classes
from handlers.recipes.data.load import DATA_SETS, load_data
from handlers.recipes.model_folder import load_judge, load_module
from handlers.recipes.quality.metrics import measure
from handlers.worker.requests import read_draw

__all__ = ["AsServed", "CannotMeasure", "Measuring"]


@dataclass(frozen=True, kw_only=True)
class _Described:
    """A model as its card describes it."""

    classes: tuple[str, ...]
    value_range: tuple[float, float]
    judge: str | None


class Measuring:
    """Measures models one after another; each data set is read once."""

    def __init__(self, *, data: Path, model_store: Path, data_set: str | None = None, judge: str | None = None) -> None:
        """Measure nothing yet.

        Args:
            data: folder of data sets that are files.
            model_store: where classifiers that judge lie.
            data_set: measure by this one; None is the one a card names.
            judge: judge by this classifier of the store; None is the one trained on the data set.
        """
        self._folder, self._store, self._data_set, self._judge = data, model_store, data_set, judge
        self._data: dict[str, DataSet] = {}

    def measure_folder(self, folder: Path, *, quick: bool) -> tuple[Quality, ...]:
        """Measure one model.

        Args:
            folder: the model's.
            quick: leave out what trains classifiers.

        Raises:
            CannotMeasure: data and model do not go together, the card names no data, or the model fails to draw.
            DataError: the data cannot be read, or lack a class.
            CardError: a folder is not whole.
            BuildError: a module cannot be built.
            WeightsError: weights do not fit their module.
        """
        card = load_card(folder)
        if "TRANSFORM" in card.operations:
            told = f"{card.name} transforms images, and learned nothing that could be measured"
            raise CannotMeasure(f"{told}; name a generator or a classifier")
        data = self._load_data(card)
        _check_fit(card, data)
        if is_custom(card) and not (folder / card.golden.file).is_file():
            raise CannotMeasure(f"{card.name} has no golden samples yet; run: fount check {folder}")
        samples = "SAMPLE" in card.operations
        name = (self._judge or classifier_of(data.name).name) if samples else None
        described = _Described(classes=card.classes, value_range=card.sample.value_range, judge=name)
        judge = self._load_judge(name, data) if name else None
        seed = card.recipe.seed if card.recipe else 0
        module = load_module(card, folder)
        if isinstance(module, Sampler):
            module = AsServed(module, card, folder)
        return measure(described, data, module, judge, seed=seed, quick=quick)

    def _load_data(self, card: Card) -> DataSet:
        name = self._data_set or (card.recipe.data if card.recipe else None)
        if name is None or name not in DATA_SETS:
            told = f"names data {name!r}" if name else "does not say what it was trained on"
            known = ", ".join(DATA_SETS)
            raise CannotMeasure(f"{card.name}: its card {told}; name data of its kind with --data-set ({known})")
        if name not in self._data:
            read = load_data(name, self._folder)
            check_classes(read)
            self._data[name] = read
        data = self._data[name]
        if self._data_set is None and card.recipe and card.recipe.data_digest != data.digest:
            raise CannotMeasure(
                f"{card.name} was trained on {name} of digest {card.recipe.data_digest}, these are {data.digest}; name "
                f"the folder it was trained on with --data, or measure it on these with --data-set {name}"
            )
        return data

    def _load_judge(self, name: str, data: DataSet) -> ConvClassifier:
        if not (self._store / name).is_dir():
            remedy = f"name the folder that has it with --model-store, or run: fount train {name}"
            raise CannotMeasure(f"{self._store} has no {name} to judge samples; {remedy}")
        return load_judge(self._store / name, data)


def _check_fit(card: Card, data: DataSet) -> None:
    """Compare sizes and classes."""
    wrong = "; ".join(_differences(card, data))
    if wrong:
        raise CannotMeasure(f"{card.name} cannot be measured on {data.name}: {wrong}; name other data with --data-set")


def _differences(card: Card, data: DataSet) -> Iterator[str]:
    size = (card.sample.height, card.sample.width, card.sample.channels)
    channels, height, width = data.test.images.shape[1:]
    if size != (height, width, channels):
        yield f"its pictures are {'×'.join(map(str, size))}, those are {height}×{width}×{channels}"
    if card.classes and len(card.classes) != len(data.classes):
        yield f"it has {len(card.classes)} classes, those {len(data.classes)}"


# FOLDED FROM handlers.recipes.quality.measure_model:
# A generator as a worker runs it: with its card's defaults for parameters that are unset, and its pictures
# looked at. A sampler of a model folder enters what measures it through here, so that what is measured is what
# a request without parameters gets, and a module of one's own that fails ends in a sentence.


class CannotMeasure(Exception):
    """A model draws nothing to measure, or does not go with its data or judge. The message says what to do."""


class AsServed(nn.Module):
    """A sampler that draws as its card says, and refuses pictures that a worker would not send."""

    def __init__(self, module: Sampler, card: Card, folder: Path) -> None:
        """Wrap a module.

        Args:
            module: with its weights, on the CPU, in evaluation mode.
            card: the model's.
            folder: the model's, for messages.
        """
        super().__init__()
        self._sampler, self._card, self._folder = module, card, folder
        self._draw = read_draw(sampling_pb2.Parameters(), card)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Refuse: it wraps what is there.

        Raises:
            ValueError: always.
        """
        raise ValueError("a wrapped sampler is not built from a configuration")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture a row, as `Sampler.sample` says.

        Args:
            noise: B addresses.
            labels: (B,) int64, or None when unconditional.
            draw: must have nothing set: the card's defaults are taken.
            deadline: as in `Sampler.sample`.

        Returns:
            (B, C, H, W) floating, within the card's value range.

        Raises:
            CannotMeasure: the module failed, or its pictures are not those of its card.
        """
        assert draw == Draw(), "what is measured is what a request without parameters gets"
        try:
            images = self._sampler.sample(noise, labels, self._draw, deadline)
        except Exception as error:  # a module of one's own raises whatever it likes
            told = str(error).partition("\n")[0]
            raise self._refusal(f"failed with {type(error).__name__}: {told}") from error
        size = self._card.sample
        shape = (len(noise.addresses), size.channels, size.height, size.width)
        if tuple(images.shape) != shape:
            raise self._refusal(f"drew {tuple(images.shape)}, its card says {shape}")
        if not find_rows_within(images.float().cpu().numpy(), size.value_range).all():
            low, high = size.value_range
            raise self._refusal(f"drew pictures that are not finite or not within [{low:g}, {high:g}]")
        return images

    def _refusal(self, what: str) -> CannotMeasure:
        return CannotMeasure(f"{self._card.name} {what}; run: fount check {self._folder}")
