"""The quality entries of the shipped cards: value, 95 % interval, the same for real data, and how it was measured.

A statistic that depends on how many pictures it is taken of, as the smallest of ten does, is taken of as many real
ones. A mean does not, so it keeps its own number, and its method names both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.card import Quality
from handlers.family import Sampler
from handlers.models.classifier import ConvClassifier
from handlers.recipes.classifiers import CLASSIFIER_STEPS, train_classifier
from handlers.recipes.digits import CLASSES, Digits, Split
from handlers.recipes.intervals import smallest_quantile_interval, smallest_share_interval, wilson_interval
from handlers.recipes.measures import (
    distance_ratio,
    draw_images,
    label_accuracy,
    resampled_distance_ratios,
    resampled_smallest_share,
)

__all__ = ["measure_classifier", "measure_conditional", "measure_training_value", "measure_unconditional"]

_SAMPLES = 10_000
_PRIOR_SEED, _TRAINING_SEED = 20261, 20262  # of the addresses drawn; the golden samples have another seed
_RUNS = 3
_CONFIDENT = 0.8
_REAL_DRAWS, _RESAMPLES = 400, 4000
_STEERED = "the test rows also steered choices of the recipe, so values lean optimistic"


def measure_classifier(data: Digits, module: ConvClassifier) -> tuple[Quality, ...]:
    """Accuracy on the test rows."""
    count = len(data.test.labels)
    hits = label_accuracy(module, data.test.images, data.test.labels)
    method = f"share of the {count} held-out test rows whose likeliest class is right; Wilson interval; {_STEERED}"
    return (_quality("test-accuracy", hits / count, wilson_interval(hits, count), None, method),)


def measure_conditional(data: Digits, module: Sampler, judge: ConvClassifier) -> tuple[Quality, ...]:
    """Label accuracy, and how far samples of a class lie apart.

    Args:
        data: the real data set.
        module: the generator, on the CPU.
        judge: the shipped classifier, on the CPU.
    """
    labels = torch.arange(_SAMPLES) % len(CLASSES)
    images = draw_images(module, _PRIOR_SEED, _SAMPLES, labels)
    hits = label_accuracy(judge, images, labels)
    count = len(data.test.labels)
    real = label_accuracy(judge, data.test.images, data.test.labels) / count
    method = (
        f"share of {_SAMPLES} samples, labels balanced, that digits-classifier gives their label; the real value is of "
        f"{count} test rows; Wilson interval; {_STEERED}"
    )
    accuracy = _quality("label-accuracy", hits / _SAMPLES, wilson_interval(hits, _SAMPLES), real, method)
    return accuracy, _measure_spread(data, Split(images=images, labels=labels))


def measure_unconditional(data: Digits, module: Sampler, judge: ConvClassifier) -> tuple[Quality, ...]:
    """How often a sample is clearly one digit, and how rare the rarest digit is.

    Args:
        data: the real data set.
        module: the generator, on the CPU.
        judge: the shipped classifier, on the CPU.
    """
    images = draw_images(module, _PRIOR_SEED, _SAMPLES, None)
    clear, counts = _judge(judge, images)
    real, count = _judge(judge, data.test.images)[0], len(data.test.labels)
    method = (
        f"share of {_SAMPLES} samples to which digits-classifier gives a class with {_CONFIDENT} or more; the real "
        f"value is of {count} test rows; Wilson interval; {_STEERED}"
    )
    share = _quality("clear-digit-share", clear / _SAMPLES, wilson_interval(clear, _SAMPLES), real / count, method)
    return share, _measure_rarest(data, judge, counts)


def measure_training_value(data: Digits, module: Sampler, *, seed: int) -> Quality:
    """Say how well classifiers trained on samples do on real test rows; trains six of them, which takes minutes.

    Args:
        data: the real data set.
        module: a conditional generator, on the CPU.
        seed: of the first run's classifiers; each further run has the next.
    """
    labels, count = data.train.labels, len(data.test.labels)
    hits, real = [], []
    for run in range(_RUNS):
        images = draw_images(module, _TRAINING_SEED + run, len(labels), labels).clone()
        hits.append(_train_and_test(data, Split(images=images, labels=labels), seed + run))
        real.append(_train_and_test(data, data.train, seed + run))
    method = (
        f"accuracy on {count} real test rows of a classifier trained {CLASSIFIER_STEPS} steps on {len(labels)} samples "
        f"with the labels of the training rows, mean of {_RUNS} runs from {min(hits) / count:.4f} to "
        f"{max(hits) / count:.4f}, each with its own samples and seed; the real value is trained on those rows, with "
        f"the same seeds; Wilson interval of the mean on {count} rows, which covers the choice of test rows and not "
        f"the training; {_STEERED}"
    )
    mean, mean_real = sum(hits) / _RUNS, sum(real) / _RUNS
    interval = wilson_interval(mean, count)
    return _quality("classification-accuracy-score", mean / count, interval, mean_real / count, method)


def _train_and_test(data: Digits, rows: Split, seed: int) -> int:
    trained = train_classifier(data, rows, steps=CLASSIFIER_STEPS, seed=seed, device=torch.device("cpu"))
    return label_accuracy(trained, data.test.images, data.test.labels)


def _measure_rarest(data: Digits, judge: ConvClassifier, counts: Tensor) -> Quality:
    """Compare with as many real rows, drawn freely: test rows alone have the classes' shares by construction."""
    _, real = _judge(judge, torch.cat([data.train.images, data.test.images]))
    drawn = resampled_smallest_share(real, _SAMPLES, _REAL_DRAWS, torch.Generator().manual_seed(0))
    method = (
        f"share of the rarest of ten classes among {_SAMPLES} samples, by digits-classifier; the real value is that of "
        f"{_SAMPLES} rows drawn with replacement from all {int(real.sum())} real ones, mean of {_REAL_DRAWS} draws; "
        "interval from Wilson bounds of every class, corrected for taking the smallest"
    )
    interval = smallest_share_interval(counts.tolist())
    return _quality("rarest-class-share", int(counts.min()) / _SAMPLES, interval, float(drawn.mean()), method)


def _measure_spread(data: Digits, samples: Split) -> Quality:
    """Compare distances within each class with those of the test rows; the worst class counts."""
    size = int(torch.bincount(data.train.labels).min())
    kinds = range(len(CLASSES))
    tests = [data.test.of_class(k) for k in kinds]
    drawn = [samples.of_class(k)[:size] for k in kinds]
    ratios = [distance_ratio(images, test) for images, test in zip(drawn, tests, strict=True)]
    real = min(distance_ratio(data.train.of_class(k)[:size], tests[k]) for k in kinds)
    generator = torch.Generator().manual_seed(0)
    resampled = torch.stack([resampled_distance_ratios(drawn[k], tests[k], _RESAMPLES, generator) for k in kinds])
    method = (
        f"mean pixel distance between two of {size} samples of a class over that of its {min(map(len, tests))} to "
        f"{max(map(len, tests))} real test rows, in the worst of ten classes ({CLASSES[ratios.index(min(ratios))]}); "
        f"mean over classes {sum(ratios) / len(ratios):.3f}; the real value is the same of {size} training rows a "
        "class, in their worst class; interval from bootstrap percentiles of every class, corrected for taking the "
        f"smallest; {_STEERED}"
    )
    return _quality("within-class-distance-ratio", min(ratios), smallest_quantile_interval(resampled), real, method)


@torch.inference_mode()
def _judge(judge: ConvClassifier, images: Tensor) -> tuple[int, Tensor]:
    """Count the clear rows, and the rows of each class."""
    most = judge.classify(images).max(dim=1)
    clear = int((most.values >= _CONFIDENT).sum())
    return clear, torch.bincount(most.indices, minlength=len(CLASSES))


def _quality(metric: str, value: float, interval: tuple[float, float], real: float | None, method: str) -> Quality:
    return Quality(
        metric=metric,
        value=round(value, 4),
        interval=(round(interval[0], 4), round(interval[1], 4)),
        real_value=None if real is None else round(real, 4),
        method=method,
    )
