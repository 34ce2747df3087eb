"""The shipped models: their cards are correct, they meet their thresholds, and they copy no training rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fount.intervals import wilson_interval
from handlers.cards.card import Card, Quality, load_card
from handlers.family import Classifier, Sampler
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import DataError
from handlers.recipes.model_folder import load_module
from handlers.recipes.quality.measure_model import ModelMeasurer
from handlers.recipes.quality.measures import count_correct, count_duplicates, draw_images
from handlers.recipes.quality.table import meets_threshold, threshold_text, to_markdown
from tests.handlers.mnist import DATA, needs_mnist

ROOT = Path(__file__).resolve().parents[3]
MODEL_STORE = ROOT / "model_store"
SHIPPED = sorted(card.parent.name for card in MODEL_STORE.glob("*/model.yaml") if card.parent.name in RECIPES)
"""Trained models; others are not measured."""
DIGITS = [name for name in SHIPPED if RECIPES[name].data == "digits"]
MNIST = [name for name in SHIPPED if RECIPES[name].data in ("mnist", "mnist-colour")]
SHAPES = [name for name in SHIPPED if RECIPES[name].data == "shapes64"]
VERSE = [name for name in SHIPPED if RECIPES[name].data == "verse"]
POINTS = [name for name in SHIPPED if RECIPES[name].length is not None and name not in VERSE]
_FEW = 1000
TRAINED = (
    "classification-accuracy-score", "noise-second-agrees", "noise-second-certain-share", "changed-second-agrees",
    "changed-second-certain-share",
)  # fmt: skip
"""Metrics for which classifiers are trained."""


@pytest.fixture(scope="module")
def measurer() -> ModelMeasurer:
    return ModelMeasurer(data=DATA, model_store=MODEL_STORE)


def card_of(name: str) -> Card:
    return load_card(MODEL_STORE / name)


def check_card(card: Card, measured: dict[str, Quality]) -> None:
    """Compare a card with new measurements, except entries of evaluations and those that train classifiers."""
    written = {entry.metric: entry for entry in card.quality if not entry.method.startswith("evaluation: ")}
    assert {metric for metric in written if metric not in TRAINED} == measured.keys()
    for metric, found in measured.items():  # another processor may classify one picture in 10 000 differently
        assert written[metric].value == pytest.approx(found.value, abs=2e-4)
        assert written[metric].interval == pytest.approx(found.interval, abs=1e-3)
        assert written[metric].real_value == pytest.approx(found.real_value, abs=2e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if RECIPES[name].draw_steps > 1 else name
             for name in [*DIGITS, *POINTS]]
)  # fmt: skip
def test_a_card_without_files_of_data_has_the_values_of_its_weights(name: str, measurer: ModelMeasurer) -> None:
    found = measurer.measure_folder(MODEL_STORE / name, quick=True)
    check_card(card_of(name), {entry.metric: entry for entry in found})


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_card_of_shapes_has_the_values_of_its_weights(name: str, measurer: ModelMeasurer) -> None:
    found = measurer.measure_folder(MODEL_STORE / name, quick=True)
    check_card(card_of(name), {entry.metric: entry for entry in found})


@pytest.mark.slow
@pytest.mark.parametrize("name", VERSE)
def test_a_card_of_verse_has_the_values_of_its_weights(name: str, measurer: ModelMeasurer) -> None:
    try:
        found = measurer.measure_folder(MODEL_STORE / name, quick=True)
    except DataError as error:
        pytest.skip(str(error))
    check_card(card_of(name), {entry.metric: entry for entry in found})


@needs_mnist
@pytest.mark.parametrize(
    "name", [name if name == "mnist-classifier" else pytest.param(name, marks=pytest.mark.slow) for name in MNIST]
)
def test_an_mnist_card_has_the_values_of_its_weights(name: str, measurer: ModelMeasurer) -> None:
    found = measurer.measure_folder(MODEL_STORE / name, quick=True)
    check_card(card_of(name), {entry.metric: entry for entry in found})


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_meets_its_thresholds(name: str) -> None:
    values = {entry.metric: entry.value for entry in card_of(name).quality}
    assert RECIPES[name].thresholds.keys() <= values.keys()
    missed = [f"{metric} {value}, required {threshold_text(name, metric)}" for metric, value in values.items()
              if not meets_threshold(name, metric, value)]  # fmt: skip
    assert missed == []


def draw_few(name: str) -> tuple[Tensor, Tensor | None]:
    card = card_of(name)
    module = load_module(card, MODEL_STORE / name)
    assert isinstance(module, Sampler)
    labels = torch.arange(_FEW) % len(card.classes) if card.classes else None
    return draw_images(module, 1, _FEW, labels, value_range=card.sample.value_range), labels


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if RECIPES[name].draw_steps > 1 else [])
        for name in SHIPPED
        if RECIPES[name].evaluator and RECIPES[name].samples
    ],
)
def test_samples_read_as_their_labels_and_are_all_different(name: str) -> None:
    images, labels = draw_few(name)
    assert count_duplicates(images) <= RECIPES[name].thresholds.get("duplicate-share", 0) * _FEW
    if labels is not None and "label-accuracy" in RECIPES[name].thresholds:
        classifier = load_module(
            card_of(str(RECIPES[name].evaluator)), MODEL_STORE / str(RECIPES[name].evaluator)
        )  # needs no data
        assert isinstance(classifier, Classifier)
        low = wilson_interval(RECIPES[name].thresholds["label-accuracy"] * _FEW, _FEW)[0]  # _FEW scatter around 10 000
        assert count_correct(classifier, images, labels) / _FEW >= low


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_value_is_within_its_interval(name: str) -> None:
    assert all(entry.interval[0] <= entry.value <= entry.interval[1] for entry in card_of(name).quality)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_value_of_training_on_samples_fits_its_interval(name: str) -> None:
    rows = {"digits": 355, "mnist": 10_000}.get(RECIPES[name].data)
    for entry in card_of(name).quality:
        if entry.metric == "classification-accuracy-score":
            assert rows
            assert entry.interval == pytest.approx(wilson_interval(entry.value * rows, rows), abs=2e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_agrees_with_its_recipe(name: str) -> None:
    card, recipe = card_of(name), RECIPES[name]
    assert (card.description, card.intended_use) == (recipe.description, recipe.intended_use)
    assert (card.family.name, dict(card.family.config)) == (recipe.family, dict(recipe.config))
    assert card.score_columns == recipe.score_columns
    assert (card.recipe and card.recipe.steps, card.sample.value_range) == (recipe.steps, recipe.value_range)


def test_the_readme_agrees_with_the_cards() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    if "<!-- models -->" not in readme:
        pytest.skip("README.md has no table between <!-- models --> and <!-- /models -->")
    rows = readme.split("<!-- models -->")[1].split("<!-- /models -->")[0].strip().splitlines()
    table = to_markdown([card_of(name) for name in SHIPPED]).splitlines()
    assert rows == [row for row in table if row in rows], "put rows of the output of `fount quality --table` there"
    assert len(rows) > 2
