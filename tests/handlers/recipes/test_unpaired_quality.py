"""Quality of translators and ascents: known maps have known values, and a picture hidden in noise is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from handlers.cards.card import Quality
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.ascent import ClassifierAscent
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.ink import TO_INK, invert, write_in_ink
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.ascents import measure_ascent
from handlers.recipes.quality.metrics import measure
from handlers.recipes.quality.unpaired import measure_translator
from handlers.recipes.run.training import borrow_weights

Map = Callable[[Tensor], Tensor]


class Toy:
    """A translator by two functions of pictures in [0, 1]."""

    def __init__(self, to_ink: Map, to_digit: Map) -> None:
        self.to_ink, self.to_digit = to_ink, to_digit

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        raise NotImplementedError

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        assert labels is not None
        chosen = self.to_ink if int(labels[0]) == TO_INK else self.to_digit
        return 2 * chosen(0.5 * (given.values + 1)).clamp(0, 1) - 1


def measured(toy: Toy, data: TrainingData, evaluator: Evaluator) -> dict[str, Quality]:
    return {entry.metric: entry for entry in measure_translator(data, toy, evaluator)}


# --- Translators ------------------------------------------------------------------------------------------------------


def test_the_true_map_has_no_error(digits: TrainingData, evaluator: Evaluator) -> None:
    found = measured(Toy(write_in_ink, invert), digits, evaluator)
    assert found["to-ink-error"].value == pytest.approx(0, abs=0.002)  # of rounding to 256 levels
    assert found["to-ink-overlap"].value > 0.99
    assert found["to-ink-label-kept"].value == pytest.approx(found["to-ink-label-kept"].real_value, abs=0.03)


def test_light_and_dark_exchanged_alone_are_the_real_value(digits: TrainingData, evaluator: Evaluator) -> None:
    found = measured(Toy(invert, invert), digits, evaluator)
    for metric in ("to-ink-error", "to-digit-error"):
        assert found[metric].value == pytest.approx(found[metric].real_value, abs=0.005)
    assert found["to-digit-overlap"].value < 0.8


def test_translations_without_strokes_keep_no_label(digits: TrainingData, evaluator: Evaluator) -> None:
    found = measured(Toy(torch.ones_like, torch.zeros_like), digits, evaluator)
    assert found["to-ink-overlap"].value == found["to-digit-overlap"].value == 0
    assert found["to-ink-label-kept"].value < 0.3
    assert found["to-digit-label-kept"].value < 0.3


def test_a_picture_hidden_in_the_least_levels_is_found(digits: TrainingData, evaluator: Evaluator) -> None:
    hiding = Toy(lambda digit: 1 - 1e-3 * digit, lambda ink: 1e3 * (1 - ink))
    found = measured(hiding, digits, evaluator)
    assert found["digit-cycle-error"].value == pytest.approx(0, abs=1e-3)
    assert found["digit-cycle-error-rounded"].value == pytest.approx(float(digits.test.images[::5].mean()), abs=1e-3)
    assert found["digit-cycle-error-disturbed"].value > 0.2


def test_an_honest_cycle_survives_rounding_and_noise(digits: TrainingData, evaluator: Evaluator) -> None:
    found = measured(Toy(invert, invert), digits, evaluator)
    values = [found[f"ink-cycle-error{suffix}"].value for suffix in ("", "-rounded", "-disturbed")]
    assert values == pytest.approx([0, 0, 1.2 / 255], abs=0.003)


# --- Ascents ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ascent(evaluator: Evaluator) -> ClassifierAscent:
    config = {**vars(evaluator.classifier.config), "step_size": 0.3}
    module = borrow_weights(dataclasses.replace(RECIPES["mnist-ascent"], config=config), evaluator)
    assert isinstance(module, ClassifierAscent)
    return module.requires_grad_(False)


def test_an_ascent_is_certain_for_its_classifier_alone(
    ascent: ClassifierAscent, digits: TrainingData, evaluator: Evaluator
) -> None:
    found = {entry.metric: entry for entry in measure_ascent(digits, ascent, evaluator, None, count=60)}
    assert found["noise-certain-share"].value > 0.9
    assert found["noise-unlikely-share"].value > 0.9
    assert found["noise-bayes-agrees"].value < 0.9
    assert "noise-second-agrees" not in found


def test_a_second_classifier_is_trained_for_the_card(
    ascent: ClassifierAscent, digits: TrainingData, evaluator: Evaluator
) -> None:
    found = measure(
        digits,
        ascent,
        evaluator,
        operations=("SAMPLE", "TRANSLATE"),
        conditional=True,
        value_range=(0.0, 1.0),
        seed=0,
        count=30,
    )
    assert {entry.metric for entry in found} >= {"noise-second-agrees", "changed-second-certain-share"}
