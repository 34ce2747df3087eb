"""The quality entries of a card: value, 95 % interval, the same for real data, and how it was measured.

A trained module, its data set and the classifier that judges it enter. A statistic that depends on how many pictures it
is taken of, as the smallest of ten does, is taken of as many real ones. A mean does not, so it keeps its own number,
and its method names both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from handlers.cards.card import Quality
from handlers.family import Classifier, Sampler
from handlers.models.classifier import ConvClassifier
from handlers.recipes.data.dataset import DataSet, Split
from handlers.recipes.quality.measures import (
    count_copies,
    count_duplicates,
    distance_ratio,
    draw_images,
    each_bytes,
    label_accuracy,
    resampled_distance_ratios,
    resampled_smallest_share,
    smallest_quantile_interval,
    smallest_share_interval,
    wilson_interval,
)
from handlers.recipes.quality.training_value import STEERED, measure_training_value, to_quality
from handlers.recipes.run.reproducible import one_thread

__all__ = ["Subject", "measure"]

_SAMPLES = 10_000
_SEED = 20261  # of the addresses drawn; golden samples and classifiers' training rows have others
_CONFIDENT = 0.8
_REAL_DRAWS, _RESAMPLES = 400, 4000
_UNIT = (0.0, 1.0)


class Subject(Protocol):
    """What is measured, as a recipe or a card describes it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Those it was trained on; empty is unconditional."""
        ...

    @property
    def value_range(self) -> tuple[float, float]:
        """Of the floats it gives or reads."""
        ...

    @property
    def judge(self) -> str | None:
        """Name of the classifier that judges it; None for a classifier."""
        ...


def measure(
    recipe: Subject, data: DataSet, module: nn.Module, judge: ConvClassifier | None, *, seed: int, quick: bool = False
) -> tuple[Quality, ...]:
    """Measure a model on one thread of the CPU.

    Args:
        recipe: what it is.
        data: what it was trained on; its test rows are what counts.
        module: the model, on the CPU, in evaluation mode.
        judge: the classifier the subject names, on the CPU; None for a classifier.
        seed: of the classifiers that are trained on samples.
        quick: leave those out; on MNIST they take ten minutes.

    Returns:
        The entries, in the order of cards.
    """
    with one_thread(), tqdm(unit="metric", desc="measuring", disable=None, leave=False) as bar:
        found = []
        for quality in _measure_each(recipe, data, module, judge, seed, quick):
            bar.update()
            bar.set_postfix_str(quality.metric)
            found.append(quality)
    return tuple(found)


def _measure_each(
    subject: Subject, data: DataSet, module: nn.Module, judge: ConvClassifier | None, seed: int, quick: bool
) -> Iterator[Quality]:
    if judge is None or subject.judge is None:
        assert isinstance(module, Classifier)
        yield _measure_test_accuracy(data, module, subject.value_range)
        return
    assert isinstance(module, Sampler)
    labels = torch.arange(_SAMPLES) % len(data.classes) if subject.classes else None
    images = draw_images(module, _SEED, _SAMPLES, labels, value_range=subject.value_range)
    if labels is None:
        yield from _measure_unconditional(data, images, judge, subject.judge)
    else:
        yield _measure_labels(data, images, labels, judge, subject.judge)
        if not quick:
            yield measure_training_value(data, module, value_range=subject.value_range, seed=seed)
        yield _measure_spread(data, Split(images=images, labels=labels))
    yield _measure_duplicates(data, images)
    yield _measure_copies(data, images)


def _measure_test_accuracy(data: DataSet, module: Classifier, value_range: tuple[float, float]) -> Quality:
    low, high = value_range
    images = data.test.images if value_range == _UNIT else low + (high - low) * data.test.images
    count = len(data.test.labels)
    hits = label_accuracy(module, images, data.test.labels)
    method = f"share of the {count} held-out test rows whose likeliest class is right; Wilson interval; {STEERED}"
    return to_quality("test-accuracy", hits / count, wilson_interval(hits, count), None, method)


def _measure_labels(data: DataSet, images: Tensor, labels: Tensor, judge: ConvClassifier, name: str) -> Quality:
    """How often a sample is of the class it was asked for."""
    hits, count = label_accuracy(judge, images, labels), len(data.test.labels)
    real = label_accuracy(judge, data.test.images, data.test.labels) / count
    method = (
        f"share of {_SAMPLES} samples, labels balanced, that {name} gives their label; the real value is of "
        f"{count} test rows; Wilson interval; {STEERED}"
    )
    return to_quality("label-accuracy", hits / _SAMPLES, wilson_interval(hits, _SAMPLES), real, method)


def _measure_unconditional(data: DataSet, images: Tensor, judge: ConvClassifier, name: str) -> Iterator[Quality]:
    """How often a sample is clearly of one class, and how rare the rarest class is."""
    clear, counts = _judge(judge, images)
    real, count = _judge(judge, data.test.images)[0], len(data.test.labels)
    method = (
        f"share of {_SAMPLES} samples to which {name} gives a class with {_CONFIDENT} or more; the real "
        f"value is of {count} test rows; Wilson interval; {STEERED}"
    )
    yield to_quality("clear-digit-share", clear / _SAMPLES, wilson_interval(clear, _SAMPLES), real / count, method)
    yield _measure_rarest(data, judge, name, counts)


def _measure_rarest(data: DataSet, judge: ConvClassifier, name: str, counts: Tensor) -> Quality:
    """Compare with as many real rows, drawn freely: test rows alone have the classes' shares by construction."""
    _, real = _judge(judge, torch.cat([data.train.images, data.test.images]))
    drawn = resampled_smallest_share(real, _SAMPLES, _REAL_DRAWS, torch.Generator().manual_seed(0))
    method = (
        f"share of the rarest of {len(counts)} classes among {_SAMPLES} samples, by {name}; the real value is that of "
        f"{_SAMPLES} rows drawn with replacement from all {int(real.sum())} real ones, mean of {_REAL_DRAWS} draws; "
        "interval from Wilson bounds of every class, corrected for taking the smallest"
    )
    interval = smallest_share_interval(counts.tolist())
    return to_quality("rarest-class-share", int(counts.min()) / _SAMPLES, interval, float(drawn.mean()), method)


def _measure_spread(data: DataSet, samples: Split) -> Quality:
    """Compare distances within each class with those of the test rows; the worst class counts."""
    kinds = range(len(data.classes))
    size = int(min(torch.bincount(split.labels, minlength=len(kinds)).min() for split in (data.train, samples)))
    tests = [data.test.of_class(k) for k in kinds]
    drawn = [samples.of_class(k)[:size] for k in kinds]
    ratios = [distance_ratio(images, test) for images, test in zip(drawn, tests, strict=True)]
    real = min(distance_ratio(data.train.of_class(k)[:size], tests[k]) for k in kinds)
    generator = torch.Generator().manual_seed(0)
    resampled = torch.stack([resampled_distance_ratios(drawn[k], tests[k], _RESAMPLES, generator) for k in kinds])
    method = (
        f"mean pixel distance between two of {size} samples of a class over that of its {min(map(len, tests))} to "
        f"{max(map(len, tests))} real test rows, in the worst of {len(kinds)} classes "
        f"({data.classes[ratios.index(min(ratios))]}); mean over classes {sum(ratios) / len(ratios):.3f}; the real "
        f"value is the same of {size} training rows a class, in their worst class; interval from bootstrap percentiles "
        f"of every class, corrected for taking the smallest; {STEERED}"
    )
    return to_quality("within-class-distance-ratio", min(ratios), smallest_quantile_interval(resampled), real, method)


def _measure_duplicates(data: DataSet, images: Tensor) -> Quality:
    real = data.train.images[:_SAMPLES]
    hits = count_duplicates(images)
    method = (
        f"share of {_SAMPLES} samples that are byte-equal to another of them, as UINT8; the real value is of the first "
        f"{len(real)} training rows; Wilson interval"
    )
    share = count_duplicates(real) / len(real)
    return to_quality("duplicate-share", hits / _SAMPLES, wilson_interval(hits, _SAMPLES), share, method)


def _measure_copies(data: DataSet, images: Tensor) -> Quality:
    train, test = data.train.images, data.test.images
    known = set(each_bytes(train))
    hits = count_copies(images, known)
    method = (
        f"share of {_SAMPLES} samples that are byte-equal to one of the {len(train)} training rows, as UINT8; the real "
        f"value is of {len(test)} test rows; Wilson interval"
    )
    share = count_copies(test, known) / len(test)
    return to_quality("training-copy-share", hits / _SAMPLES, wilson_interval(hits, _SAMPLES), share, method)


@torch.inference_mode()
def _judge(judge: ConvClassifier, images: Tensor) -> tuple[int, Tensor]:
    """Count the clear rows, and the rows of each class."""
    most = torch.cat([judge.classify(rows) for rows in torch.split(images, 100)]).max(dim=1)
    clear = int((most.values >= _CONFIDENT).sum())
    return clear, torch.bincount(most.indices, minlength=judge.config.classes)
