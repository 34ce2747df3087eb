"""Quality of models that are given reduced pictures, measured on toys whose quality is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Given, Noise
from handlers.recipes.data.colours import colour_images, draw_hues
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.translations import measure_translations
from handlers.recipes.run.training import train_model
from tests.handlers.recipes.test_translation_training import regressor
from tests.handlers.training_toys import MODEL_STORE, options

SHAPE = (1, 4, 4)


class Answerer(nn.Module):
    """Answers as a function says."""

    def __init__(self, answer: Callable[[Tensor, Noise], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    @classmethod
    def from_config(cls, config: object) -> Answerer:
        raise NotImplementedError

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        return self.answer(given.values, noise)


class Drawer(Answerer):
    """Answers as a function says, in one step."""

    def steps(self, draw: Draw) -> int:
        return 1

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        raise NotImplementedError

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        return self.answer(given.values, noise)

    def advance(self, state: Tensor, *others: object) -> Tensor:
        return state

    def finish(self, state: Tensor) -> Tensor:
        return state

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        raise NotImplementedError


def enlarge(given: Tensor, noise: Noise) -> Tensor:
    return given.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def measured(
    data: TrainingData, module: nn.Module, evaluator: Evaluator | None = None, shape: tuple[int, int, int] = SHAPE
) -> dict[str, float]:
    entries = measure_translations(data, module, evaluator, shape=shape, value_range=(0.0, 1.0), count=200)
    return {entry.metric: entry.value for entry in entries}


def known(data: TrainingData, images: Tensor) -> TrainingData:
    """The same pictures in both splits."""
    split = Split(images=images, labels=torch.arange(len(images)) % 10)
    return dataclasses.replace(data, train=split, test=split)


@pytest.fixture(scope="module")
def binary(digits: TrainingData) -> TrainingData:
    """Pixels that are black or white, independently."""
    generator = torch.Generator().manual_seed(3)
    return known(digits, torch.rand(200, 1, 8, 8, generator=generator).round())


def test_a_repeated_pixel_is_consistent_without_contrast(digits: TrainingData, evaluator: Evaluator) -> None:
    found = measured(digits, Answerer(enlarge), evaluator)
    assert found["consistency"] == 1
    assert found["contrast-ratio"] < 0.9
    assert 0.1 < found["label-accuracy"] < 1
    assert "spread-ratio" not in found


def test_the_error_is_in_decibels(binary: TrainingData) -> None:
    grey = Answerer(lambda given, noise: torch.full((len(given), 1, 8, 8), 128 / 255))
    assert measured(binary, grey)["psnr"] == pytest.approx(10 * math.log10(4), abs=0.01)


def test_independent_answers_of_the_right_law_have_a_spread_of_1(binary: TrainingData) -> None:
    drawer = Drawer(lambda given, noise: (noise.normal(Stream.LATENT, (1, 8, 8)) > 0).float())
    found = measured(binary, drawer)
    assert found["spread-ratio"] == pytest.approx(1, abs=0.05)
    assert found["contrast-ratio"] == pytest.approx(1, abs=0.05)
    assert found["training-error-ratio"] == 1


def test_a_model_that_returns_training_rows_is_found(binary: TrainingData) -> None:
    rows = binary.train.images
    recall = Answerer(lambda given, noise: rows[noise.addresses.indices.astype("int64") % len(rows)])
    assert measured(binary, recall)["training-copy-share"] == 1


def test_colours_of_the_law_are_right(digits: TrainingData) -> None:
    labels = torch.arange(200) % 10
    greys = digits.train.images[:200]
    data = known(digits, colour_images(greys, draw_hues(labels, 0)))
    right = Answerer(lambda given, noise: colour_images(given, draw_hues(_labels(noise), 700)))
    found = measured(data, right, shape=(1, 8, 8))
    assert found["first-hue-share"] == pytest.approx(0.7, abs=0.1)
    assert found["right-hue-share"] > 0.97
    assert found["hue-distance"] < 0.1
    assert found["saturation"] > 0.99


def test_one_hue_for_all_is_wrong(digits: TrainingData) -> None:
    data = known(digits, colour_images(digits.train.images[:200], draw_hues(torch.arange(200) % 10, 0)))
    red = Answerer(lambda given, noise: colour_images(given, torch.zeros(len(given), dtype=torch.float64)))
    found = measured(data, red, shape=(1, 8, 8))
    assert found["right-hue-share"] == pytest.approx(0.2, abs=0.05)
    assert found["hue-distance"] > 0.2


def _labels(noise: Noise) -> Tensor:
    return torch.from_numpy(noise.addresses.indices.astype("int64")) % 10


def test_a_trained_model_is_measured_and_written(tmp_path: Path) -> None:
    card = train_model(
        regressor(),
        tmp_path / "model",
        options(tmp_path / "run", steps=3),
        data_folder=None,
        evaluator_folder=MODEL_STORE / "digits-classifier",
        log=lambda _line: None,
    )
    assert card.input_shape == (4, 4, 1)
    assert card.encodings == ("UINT8", "FLOAT32", "PNG")
    assert "label-accuracy" in {entry.metric for entry in card.quality}
