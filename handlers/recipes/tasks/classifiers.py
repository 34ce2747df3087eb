"""Training of a classifier: cross-entropy with smoothed labels on augmented pictures.

A classifier trained on real rows labels and embeds samples. Trained on samples and tested on real rows, its accuracy
measures how much of the data a generator has learned.

Sources: Szegedy et al., "Rethinking the inception architecture", 2016 (smoothed labels); Ravuri and Vinyals,
"Classification accuracy score for conditional generative models", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from handlers.models.classifier import ConvClassifier
from handlers.recipes.quality.measures import label_accuracy
from handlers.recipes.run.reproducible import reproducible
from handlers.recipes.tasks.task import ClassifierFit, SingleNetworkTask

if TYPE_CHECKING:
    from handlers.recipes.catalogue import Recipe
    from handlers.recipes.data.load import Split, TrainingData

__all__ = ["ClassifierTask", "train_classifier"]

_TESTS = 10  # of the test rows during training, for the progress bar


class ClassifierTask(SingleNetworkTask):
    """One batch of augmented pictures a step."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build the network, as in `handlers.recipes.training.build_task`."""
        assert isinstance(recipe.fit, ClassifierFit)
        classifier = ConvClassifier.from_config(recipe.config).to(device)
        super().__init__(classifier, len(rows.labels), recipe.fit, steps=steps, generator=generator)
        self._smoothing, self._augmentation = recipe.fit.smoothing, recipe.fit.augmentation
        self._images, self._labels = rows.images.to(device), rows.labels.to(device)

    def losses(self, rows: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Compute the cross-entropy."""
        rows = rows.to(self._images.device)
        logits = self.module(self._augmentation.change(self._images[rows], generator))
        entropy = nn.functional.cross_entropy(logits, self._labels[rows], label_smoothing=self._smoothing)
        return {"loss": entropy}


def train_classifier(
    recipe: Recipe, data: TrainingData, rows: Split, *, steps: int, seed: int, device: torch.device
) -> ConvClassifier:
    """Train a classifier without checkpoints.

    Args:
        recipe: of a classifier.
        data: the real data set; the accuracy on its test rows is shown in the progress bar.
        rows: to train on: the real training rows, or generated ones.
        steps: optimiser steps.
        seed: of initial weights, batches and augmentation.
        device: where to train.

    Returns:
        The trained module with averaged weights, on the CPU.
    """
    with reproducible(seed, device=device) as generator:
        task = ClassifierTask(recipe, rows, steps=steps, generator=generator, device=device)
        with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:
            for number in range(steps):
                task.step(number)
                if not bar.disable and (number + 1) % max(1, steps // _TESTS) == 0:
                    bar.set_postfix(accuracy=f"{_test(task, data.test, device):.3f}")
                bar.update()
    trained = task.averaged()
    assert isinstance(trained, ConvClassifier)
    return trained.cpu()


def _test(task: ClassifierTask, rows: Split, device: torch.device) -> float:
    """Compute the accuracy on test rows."""
    classifier = task.averaged()
    assert isinstance(classifier, ConvClassifier)
    return label_accuracy(classifier, rows.images.to(device), rows.labels.to(device)) / len(rows.labels)
