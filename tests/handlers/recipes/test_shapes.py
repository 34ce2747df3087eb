"""Shapes as training data, and the measures of factors that samples show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fount.readers.shapes import SHAPE_CLASSES, draw_shapes, shapes_digest
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.shapes import chi_squared, measure_shapes


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(draw_shapes(0, 300)[0]).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    torch.manual_seed(0)
    config = {**RECIPES["shapes-classifier"].config, "features": 4, "embedding_dim": 4}
    return Evaluator(name="untrained", classifier=ConvClassifier.from_config(config).eval())


def test_training_reads_the_rows_of_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.recipes.data.load.SHAPE_SPLITS", {"train": (0, 12), "test": (2**32, 5)})
    data = load_data("shapes64")
    pixels, factors = draw_shapes(2**32, 5)
    assert (data.classes, data.digest, len(data.train.labels)) == (SHAPE_CLASSES, shapes_digest(), 12)
    assert data.test.labels.tolist() == factors.shape.tolist()
    assert ((data.test.images * 255).permute(0, 2, 3, 1).round().numpy() == pixels).all()


def test_chi_squared_of_equal_shares_is_0() -> None:
    assert chi_squared(np.array([0, 1, 2, 0, 1, 2]), 3) == 0


def test_chi_squared_has_a_closed_form() -> None:
    assert chi_squared(np.array([0, 0, 0, 1]), 2) == pytest.approx((3 - 2) ** 2 / 2 + (1 - 2) ** 2 / 2)


def test_real_rows_have_clear_colours_of_equal_shares(images: torch.Tensor, evaluator: Evaluator) -> None:
    clear, colours, _ = measure_shapes(images, images, evaluator)
    assert (clear.metric, clear.value, clear.real_value) == ("clear-colour-share", 1.0, 1.0)
    assert (colours.metric, colours.value < 20.5) == ("colour-chi-squared", True)
    assert colours.interval[0] <= colours.value <= colours.interval[1]


def test_missing_colours_and_grey_pictures_are_found(images: torch.Tensor, evaluator: Evaluator) -> None:
    grey = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    clear, colours, shapes = measure_shapes(grey, images, evaluator)
    assert (clear.value, colours.value) == (0.0, pytest.approx(300 * 5))
    assert (shapes.metric, "that untrained reads" in shapes.method) == ("shape-chi-squared", True)
