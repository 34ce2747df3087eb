"""What samples are worth for training: how well classifiers that saw nothing else do on real test rows.

Source: Ravuri and Vinyals, "Classification accuracy score for conditional generative models", 2019.
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from handlers.cards.card import Quality
from handlers.family import Sampler
from handlers.recipes.catalogue import Recipe, classifier_of
from handlers.recipes.data.dataset import DataSet, Split
from handlers.recipes.quality.measures import draw_images, label_accuracy, wilson_interval
from handlers.recipes.tasks.classifiers import train_classifier

__all__ = ["STEERED", "TRAINING_VALUE", "measure_training_value", "to_quality"]

TRAINING_VALUE = "classification-accuracy-score"
STEERED = "the test rows also steered choices of the recipe, so values lean optimistic"

_SEED = 20262  # of the first run's addresses; each further run has the next
_RUNS = 3
_CPU = torch.device("cpu")


def measure_training_value(data: DataSet, module: Sampler, *, value_range: tuple[float, float], seed: int) -> Quality:
    """Train six classifiers, three on samples and three on real rows, which takes minutes, and test them all.

    They are trained by the recipe of the data set's classifier.

    Args:
        data: the real data set.
        module: a conditional generator, on the CPU.
        value_range: of the floats the generator gives.
        seed: of the first run's classifiers; each further run has the next.
    """
    recipe, labels, count = classifier_of(data.name), data.train.labels, len(data.test.labels)
    hits, real = [], []
    for run in tqdm(range(_RUNS), unit="run", desc="training on samples", disable=None, leave=False):
        images = draw_images(module, _SEED + run, len(labels), labels, value_range=value_range).clone()
        hits.append(_train_and_test(recipe, data, Split(images=images, labels=labels), seed + run))
        real.append(_train_and_test(recipe, data, data.train, seed + run))
    method = (
        f"accuracy on {count} real test rows of a classifier trained {recipe.steps} steps on {len(labels)} samples "
        f"with the labels of the training rows, mean of {_RUNS} runs from {min(hits) / count:.4f} to "
        f"{max(hits) / count:.4f}, each with its own samples and seed; the real value is trained on those rows, with "
        f"the same seeds; Wilson interval of the mean on {count} rows, which covers the choice of test rows and not "
        f"the training; {STEERED}"
    )
    mean, mean_real = sum(hits) / _RUNS, sum(real) / _RUNS
    return to_quality(TRAINING_VALUE, mean / count, wilson_interval(mean, count), mean_real / count, method)


def to_quality(metric: str, value: float, interval: tuple[float, float], real: float | None, method: str) -> Quality:
    """Round what was measured to the four digits a card has."""
    return Quality(
        metric=metric,
        value=round(value, 4),
        interval=(round(interval[0], 4), round(interval[1], 4)),
        real_value=None if real is None else round(real, 4),
        method=method,
    )


def _train_and_test(recipe: Recipe, data: DataSet, rows: Split, seed: int) -> int:
    trained = train_classifier(recipe, data, rows, steps=recipe.steps, seed=seed, device=_CPU)
    return label_accuracy(trained, data.test.images, data.test.labels)
