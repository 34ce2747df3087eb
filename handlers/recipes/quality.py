"""The quality entries of the shipped cards: value, 95 % interval, the same for real data, and how it was measured."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.card import Quality
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import Autoencoder
from handlers.recipes.classifiers import train_classifier
from handlers.recipes.digits import CLASSES, Digits, Split
from handlers.recipes.measures import (
    bootstrap_distance_ratio,
    distance_ratio,
    draw_images,
    label_accuracy,
    wilson_interval,
)

__all__ = ["SAMPLES", "measure_classifier", "measure_conditional", "measure_unconditional"]

SAMPLES = 10_000

_PRIOR_SEED, _TRAINING_SEED = 20261, 20262  # of the addresses drawn; the golden samples have another seed
_CONFIDENT = 0.8
_DISTANCE_SAMPLES = 500  # a class, or ten times as many without classes


def measure_classifier(data: Digits, module: ConvClassifier) -> tuple[Quality, ...]:
    """Accuracy on the test rows."""
    count = len(data.test.labels)
    hits = label_accuracy(module, data.test.images, data.test.labels)
    method = f"share of the {count} held-out test rows whose likeliest class is right; Wilson interval"
    return (_proportion("test-accuracy", hits, count, None, method),)


def measure_conditional(
    data: Digits, module: Autoencoder, judge: ConvClassifier, *, steps: int, seed: int
) -> tuple[Quality, ...]:
    """Label accuracy, what a classifier learns from samples, and how far samples of a class lie apart.

    Args:
        data: the real data set.
        module: the generator, on the CPU.
        judge: the shipped classifier, on the CPU.
        steps: for the classifier trained on samples.
        seed: for the same.
    """
    labels = torch.arange(SAMPLES) % len(CLASSES)
    images = draw_images(module, _PRIOR_SEED, SAMPLES, labels)
    hits = label_accuracy(judge, images, labels)
    real = label_accuracy(judge, data.test.images, data.test.labels) / len(data.test.labels)
    method = f"share of {SAMPLES} samples, labels balanced, that digits-classifier gives their label; Wilson interval"
    accuracy = _proportion("label-accuracy", hits, SAMPLES, real, method)
    samples = Split(images=images, labels=labels)
    return accuracy, _measure_training_value(data, module, steps, seed), _measure_spread(data, samples)


def measure_unconditional(data: Digits, module: Autoencoder, judge: ConvClassifier) -> tuple[Quality, ...]:
    """How often a sample is clearly one digit, and how rare the rarest digit is."""
    images = draw_images(module, _PRIOR_SEED, SAMPLES, None)
    clear, shares = _judge(judge, images)
    clear_test, shares_test = _judge(judge, data.test.images)
    count = len(data.test.labels)
    method = f"share of {SAMPLES} samples to which digits-classifier gives a class with {_CONFIDENT} or more; Wilson"
    rarest = f"share of the rarest of ten classes among {SAMPLES} samples, by digits-classifier; Wilson interval"
    return (
        _proportion("clear-digit-share", clear, SAMPLES, clear_test / count, method),
        _proportion("rarest-class-share", int(shares.min()), SAMPLES, int(shares_test.min()) / count, rarest),
    )


def _measure_training_value(data: Digits, module: Autoencoder, steps: int, seed: int) -> Quality:
    labels = data.train.labels
    samples = Split(images=draw_images(module, _TRAINING_SEED, len(labels), labels).clone(), labels=labels)
    hits, real = (
        label_accuracy(trained, data.test.images, data.test.labels)
        for trained in (
            train_classifier(data, rows, steps=steps, seed=seed, device=torch.device("cpu"))
            for rows in (samples, data.train)
        )
    )
    count = len(data.test.labels)
    method = (
        f"accuracy on {count} real test rows of a classifier trained {steps} steps on {len(labels)} samples with the "
        "labels of the training rows; the real value is trained on those rows; Wilson interval"
    )
    return _proportion("classification-accuracy-score", hits, count, real / count, method)


def _measure_spread(data: Digits, samples: Split) -> Quality:
    """Compare distances within each class with those of the test rows; the worst class counts."""
    pairs = [(samples.of_class(k)[:_DISTANCE_SAMPLES], data.test.of_class(k)) for k in range(len(CLASSES))]
    ratios = [distance_ratio(images, real) for images, real in pairs]
    worst = min(range(len(CLASSES)), key=ratios.__getitem__)
    low, high = bootstrap_distance_ratio(*pairs[worst], torch.Generator().manual_seed(0))
    real = min(distance_ratio(data.train.of_class(k), data.test.of_class(k)) for k in range(len(CLASSES)))
    method = (
        f"mean pixel distance between two of {_DISTANCE_SAMPLES} samples of a class over that of the class's real test "
        f"rows, in the worst class ({CLASSES[worst]}); mean over classes {sum(ratios) / len(ratios):.3f}; the real "
        "value has training rows for samples; bootstrap interval of that class"
    )
    return Quality(
        metric="within-class-distance-ratio",
        value=round(ratios[worst], 4),
        interval=(round(low, 4), round(high, 4)),
        real_value=round(real, 4),
        method=method,
    )


@torch.inference_mode()
def _judge(judge: ConvClassifier, images: Tensor) -> tuple[int, Tensor]:
    """Count the clear rows, and the rows of each class."""
    most = judge.classify(images).max(dim=1)
    clear = int((most.values >= _CONFIDENT).sum())
    return clear, torch.bincount(most.indices, minlength=len(CLASSES))


def _proportion(metric: str, hits: int, trials: int, real: float | None, method: str) -> Quality:
    low, high = wilson_interval(hits, trials)
    return Quality(
        metric=metric,
        value=round(hits / trials, 4),
        interval=(round(low, 4), round(high, 4)),
        real_value=None if real is None else round(real, 4),
        method=method,
    )
