"""The shipped models: their cards say what their weights do, they are as good as promised, and they copy nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from handlers.cards.card import Card, Quality, load_card
from handlers.family import Classifier, Sampler
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.model_folder import load_module
from handlers.recipes.quality.measure_model import Measuring
from handlers.recipes.quality.measures import count_duplicates, draw_images, label_accuracy, wilson_interval
from handlers.recipes.quality.table import is_reached, to_markdown, wanted_text
from tests.handlers.mnist import DATA, needs_mnist

ROOT = Path(__file__).resolve().parents[3]
MODEL_STORE = ROOT / "model_store"
SHIPPED = sorted(card.parent.name for card in MODEL_STORE.glob("*/model.yaml") if card.parent.name in RECIPES)
"""Those that were trained; nothing is measured of the others."""
DIGITS = [name for name in SHIPPED if RECIPES[name].data == "digits"]
MNIST = [name for name in SHIPPED if RECIPES[name].data == "mnist"]
_FEW = 1000


@pytest.fixture(scope="module")
def measuring() -> Measuring:
    return Measuring(data=DATA, model_store=MODEL_STORE)


def card_of(name: str) -> Card:
    return load_card(MODEL_STORE / name)


def check_card(card: Card, measured: dict[str, Quality]) -> None:
    """Compare a card with measurements of today; what trains classifiers, or came of an evaluation, is left out."""
    said = {entry.metric: entry for entry in card.quality if not entry.method.startswith("evaluation: ")}
    assert said.keys() - {"classification-accuracy-score"} == measured.keys()
    for metric, found in measured.items():  # another processor may judge a picture in 10 000 otherwise
        assert said[metric].value == pytest.approx(found.value, abs=2e-4)
        assert said[metric].interval == pytest.approx(found.interval, abs=1e-3)
        assert said[metric].real_value == pytest.approx(found.real_value, abs=2e-4)


@pytest.mark.parametrize("name", DIGITS)
def test_a_digits_card_says_what_its_weights_do(name: str, measuring: Measuring) -> None:
    found = measuring.measure_folder(MODEL_STORE / name, quick=True)
    check_card(card_of(name), {entry.metric: entry for entry in found})


@needs_mnist
@pytest.mark.parametrize(
    "name", [name if name == "mnist-classifier" else pytest.param(name, marks=pytest.mark.slow) for name in MNIST]
)
def test_an_mnist_card_says_what_its_weights_do(name: str, measuring: Measuring) -> None:
    found = measuring.measure_folder(MODEL_STORE / name, quick=True)
    check_card(card_of(name), {entry.metric: entry for entry in found})


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_as_good_as_is_wanted(name: str) -> None:
    values = {entry.metric: entry.value for entry in card_of(name).quality}
    assert RECIPES[name].wanted.keys() <= values.keys()
    missed = [f"{metric} {value}, wanted {wanted_text(name, metric)}" for metric, value in values.items()
              if not is_reached(name, metric, value)]  # fmt: skip
    assert missed == []


def draw_few(name: str) -> tuple[Tensor, Tensor | None]:
    card = card_of(name)
    module = load_module(card, MODEL_STORE / name)
    assert isinstance(module, Sampler)
    labels = torch.arange(_FEW) % len(card.classes) if card.classes else None
    return draw_images(module, 1, _FEW, labels, value_range=card.sample.value_range), labels


@pytest.mark.parametrize("name", [name for name in SHIPPED if RECIPES[name].samples])
def test_samples_read_as_their_labels_and_are_all_different(name: str) -> None:
    images, labels = draw_few(name)
    assert count_duplicates(images) == 0
    if labels is not None:
        judge = load_module(card_of(str(RECIPES[name].judge)), MODEL_STORE / str(RECIPES[name].judge))  # needs no data
        assert isinstance(judge, Classifier)
        low = wilson_interval(RECIPES[name].wanted["label-accuracy"] * _FEW, _FEW)[0]  # _FEW scatter around 10 000
        assert label_accuracy(judge, images, labels) / _FEW >= low


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_value_lies_in_its_interval(name: str) -> None:
    assert all(entry.interval[0] <= entry.value <= entry.interval[1] for entry in card_of(name).quality)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_value_of_training_on_samples_fits_its_interval(name: str) -> None:
    rows = {"digits": 355, "mnist": 10_000}[RECIPES[name].data]
    for entry in card_of(name).quality:
        if entry.metric == "classification-accuracy-score":
            assert entry.interval == pytest.approx(wilson_interval(entry.value * rows, rows), abs=2e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_says_what_its_recipe_says(name: str) -> None:
    card, recipe = card_of(name), RECIPES[name]
    assert (card.description, card.intended_use) == (recipe.description, recipe.intended_use)
    assert (card.family.name, dict(card.family.config)) == (recipe.family, dict(recipe.config))
    assert (card.recipe and card.recipe.steps, card.sample.value_range) == (recipe.steps, recipe.value_range)


def test_the_readme_says_what_the_cards_say() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    if "<!-- models -->" not in readme:
        pytest.skip("README.md has no table between <!-- models --> and <!-- /models -->")
    table = readme.split("<!-- models -->")[1].split("<!-- /models -->")[0].strip()
    assert table == to_markdown([card_of(name) for name in SHIPPED]), "put the output of `fount quality --table` there"
