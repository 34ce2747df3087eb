"""Tests of this model with the code of a worker: run `pytest` in its folder (pip install pytest)."""

from pathlib import Path

import numpy as np
import pytest

from handlers.trial import Trial, open_trial

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> Trial:
    return open_trial(Path(__file__).parent)


@pytest.fixture(scope="module")
def images(model: Trial) -> np.ndarray:
    shape, value_range = (8, *model.card.input_shape), model.card.sample.value_range
    return RANDOM.uniform(*value_range, shape).astype(np.float32)


def test_translations_have_the_shape_of_the_card(model: Trial, images: np.ndarray) -> None:
    assert model.translate(images).shape == (8, *model.card.sample.shape)


def test_translations_are_within_the_value_range(model: Trial, images: np.ndarray) -> None:
    low, high = model.card.sample.value_range
    made = model.translate(images)
    assert low <= made.min() <= made.max() <= high


def test_an_address_gives_the_same_translation_again(model: Trial, images: np.ndarray) -> None:
    first, again = model.translate(images, seed=1), model.translate(images, seed=1)
    assert first.tobytes() == again.tobytes()


def test_a_translation_does_not_depend_on_its_batch(model: Trial, images: np.ndarray) -> None:
    together, alone = model.translate(images), model.translate(images[3:4], start_index=3)
    np.testing.assert_allclose(alone[0], together[3], atol=1e-4)


def test_another_picture_gives_another_translation(model: Trial, images: np.ndarray) -> None:
    made = model.translate(images)
    assert not np.allclose(made[0], made[1])
