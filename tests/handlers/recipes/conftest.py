"""Fixtures of the training tests: the digits and the classifier that evaluates generators of them."""

from __future__ import annotations

import pytest

from handlers.models.classifier import ConvClassifier
from handlers.recipes.data.load import TrainingData, load_data
from handlers.recipes.model_folder import Evaluator, load_evaluator
from tests.handlers.training_toys import MODEL_STORE


@pytest.fixture(scope="session")
def digits() -> TrainingData:
    return load_data("digits")


@pytest.fixture(scope="session")
def evaluator(digits: TrainingData) -> Evaluator:
    return load_evaluator(MODEL_STORE / "digits-classifier", digits)


@pytest.fixture(scope="session")
def classifier(evaluator: Evaluator) -> ConvClassifier:
    return evaluator.classifier
