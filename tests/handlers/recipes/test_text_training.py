"""A model of text is trained, measured and described by its recipe."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from handlers.cards.card import Card, load_card
from handlers.models import load_family
from handlers.models.transformer import TextTransformer
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import load_data
from handlers.recipes.quality.texts import draw_texts, measure_texts
from handlers.recipes.run.likelihood_probe import TextProbe
from handlers.recipes.run.training import train_model
from tests.handlers.training_toys import CPU, options, refit

SMALL = {**RECIPES["grammar-gpt"].config, "layers": 1, "features": 16, "heads": 2}
TINY = dataclasses.replace(refit(RECIPES["grammar-gpt"], batch=4), config=SMALL, measured_samples=3)


def untrained() -> TextTransformer:
    torch.manual_seed(0)
    module = load_family("text-transformer", SMALL)
    assert isinstance(module, TextTransformer)
    return module.eval()


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder, how = tmp_path_factory.mktemp("model"), options(tmp_path_factory.mktemp("run"), steps=2)
    train_model(TINY, folder, how, data_folder=None, evaluator_folder=None, log=lambda _: None)
    return load_card(folder)


@pytest.mark.slow
def test_its_card_is_of_text_that_continues_a_prefix(card: Card) -> None:
    assert (card.sample.modality, card.sample.shape, card.encodings) == ("text", (96,), ("UINT8",))
    assert (card.conditions, card.draw_steps) == (("PREFIX",), 6)


@pytest.mark.slow
def test_its_card_compares_it_with_the_grammar(card: Card) -> None:
    quality = {entry.metric: entry for entry in card.quality}
    nats = quality["test-nats-per-byte"]
    assert nats.real_value is not None
    assert 0.3 < nats.real_value < 0.4 < nats.value  # a model of two steps
    assert (quality["valid-sentence-share"].value, quality["valid-sentence-share"].real_value) == (0, 1)
    assert quality["copied-passage-bytes"].value < 10


def test_text_without_a_known_law_has_no_real_likelihood() -> None:
    data = load_data("grammar")
    few = dataclasses.replace(data.test, images=data.test.images[:20], labels=data.test.labels[:20])
    module = untrained()
    plays = dataclasses.replace(data, name="verse", test=few, train=few)
    found = {entry.metric: entry for entry in measure_texts(plays, module, module, 2)}
    assert found.keys() == {"test-nats-per-byte", "copied-passage-bytes"}
    assert found["test-nats-per-byte"].real_value is None


def test_its_pictures_show_text() -> None:
    data = load_data("grammar")
    probe = TextProbe(data, (), (0.0, 255.0), CPU)
    picture = probe.draw(untrained())
    assert picture.getextrema() == (0, 255)


@pytest.mark.parametrize("count", [1, 65])
def test_texts_are_drawn_in_parts_that_do_not_show(count: int) -> None:
    rows = draw_texts(untrained(), 3, count)
    assert rows.shape == (count, 96)
    assert torch.equal(rows[:1], draw_texts(untrained(), 3, 1))
