"""Tests of this model with the code of a worker: run `pytest` in its folder (pip install pytest)."""

from pathlib import Path

import numpy as np
import pytest

from handlers.trial import Trial, open_trial


@pytest.fixture(scope="module")
def model() -> Trial:
    return open_trial(Path(__file__).parent)


def test_samples_have_the_shape_of_the_card(model: Trial) -> None:
    sample = model.card.sample
    assert model.draw(count=4).shape == (4, *sample.shape)


def test_samples_are_within_the_value_range(model: Trial) -> None:
    low, high = model.card.sample.value_range
    images = model.draw(count=16)
    assert low <= images.min() <= images.max() <= high


def test_an_address_gives_the_same_sample_again(model: Trial) -> None:
    first, again = model.draw(seed=1, count=4), model.draw(seed=1, count=4)
    assert first.tobytes() == again.tobytes()


def test_another_seed_gives_other_samples(model: Trial) -> None:
    assert not np.allclose(model.draw(seed=1, count=4), model.draw(seed=2, count=4))


def test_a_sample_does_not_depend_on_its_batch(model: Trial) -> None:
    together, alone = model.draw(count=8), model.draw(start_index=3, count=1)
    np.testing.assert_allclose(alone[0], together[3], atol=1e-4)


def test_every_class_gives_another_sample(model: Trial) -> None:
    images = [model.draw(count=1, label=label) for label in range(len(model.card.classes))]
    assert not any(np.allclose(images[0], other) for other in images[1:])
