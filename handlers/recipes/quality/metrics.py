"""The quality entries of a card: value, 95 % interval, the same for real data, and the method.

A trained module, its data set and the evaluator classifier enter. A statistic that depends on the number of pictures,
like the smallest of ten, is computed from equally many real ones. A mean does not depend on it, so its real value uses
all rows, and its method names both numbers.

Source: Ravuri and Vinyals, "Classification accuracy score for conditional generative models", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fount.intervals import wilson_interval
from handlers.cards.card import Direction, OperationName, Quality
from handlers.family import Classifier, Sampler
from handlers.models.ascent import ClassifierAscent
from handlers.models.classifier import ConvClassifier
from handlers.models.cyclegan import CycleGan
from handlers.models.image_diffusion import ImageDiffusion
from handlers.models.image_regressor import ImageRegressor
from handlers.models.mixture import GaussianMixture
from handlers.models.transformer import TextTransformer
from handlers.recipes.catalogue import Recipe, classifier_of
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.ascents import measure_ascent
from handlers.recipes.quality.attributes import measure_directions
from handlers.recipes.quality.densities import measure_mixture, measure_points
from handlers.recipes.quality.latent import measure_latents
from handlers.recipes.quality.likelihoods import measure_likelihoods
from handlers.recipes.quality.measures import (
    CONFIDENT,
    OPTIMISTIC,
    count_copies,
    count_correct,
    count_duplicates,
    distance_ratio,
    draw_images,
    each_bytes,
    quality_entry,
    resampled_distance_ratios,
    resampled_smallest_share,
    smallest_quantile_interval,
    smallest_share_interval,
)
from handlers.recipes.quality.shapes import measure_shapes
from handlers.recipes.quality.texts import measure_texts
from handlers.recipes.quality.translations import measure_translations
from handlers.recipes.quality.unpaired import measure_translator
from handlers.recipes.reproducible import reproducible, torch_threads
from handlers.recipes.tasks.autoregressive import Likelihood
from handlers.recipes.tasks.classifiers import ClassifierTask

__all__ = ["SAMPLES", "measure", "measure_training_value", "train_classifier"]

SAMPLES = 10_000
"""Drawn of a model whose recipe does not say otherwise."""

_SEED = 20261  # of the samples; golden samples and training rows of classifiers have other seeds
_TRAINING_SEED = 20262  # of the samples that classifiers are trained on in the first run; later runs have the next
_TRAINING_RUNS = 3
_SECOND_SEED, _SECOND_PART = 20264, 8  # of the classifier that gives a second opinion
_TESTS = 10  # of the test rows while a classifier is trained, for the progress bar
_REAL_DRAWS, _RESAMPLES = 400, 4000
_UNIT = (0.0, 1.0)
_CPU = torch.device("cpu")
_POINTS_NDIM = 2  # (N, length)
_TRANSLATORS = (ImageDiffusion, ImageRegressor, CycleGan, ClassifierAscent)


def measure(
    data: TrainingData,
    module: nn.Module,
    evaluator: Evaluator | None,
    *,
    operations: tuple[OperationName, ...],
    conditional: bool,
    value_range: tuple[float, float],
    seed: int,
    directions: tuple[Direction, ...] = (),
    sampler: nn.Module | None = None,
    quick: bool = False,
    count: int = SAMPLES,
) -> tuple[Quality, ...]:
    """Measure a model on one thread of the CPU.

    Args:
        data: what it was trained on; it is compared with the test rows.
        module: the model, on the CPU, in evaluation mode.
        evaluator: labels the samples of a generator; None for a classifier or a model of points, text or colours.
        operations: of the model.
        conditional: whether a generator takes labels.
        value_range: of the floats the module returns or reads.
        seed: of the classifiers that are trained on samples.
        directions: of its latent space, for its card.
        sampler: the generator as it is served; None is the module itself.
        quick: leave those out; on MNIST they take ten minutes.
        count: of samples; fewer than the default are of a slow generator, on which no classifier is trained.
    """
    with torch_threads(1), tqdm(unit="metric", desc="measuring", disable=None, leave=False) as bar:
        found = list[Quality]()
        entries: Iterator[Quality]
        if isinstance(module, TextTransformer):
            assert sampler is None or isinstance(sampler, Sampler)
            entries = measure_texts(data, module, sampler or module, count)
        elif data.test.images.ndim == _POINTS_NDIM:
            entries = measure_points(data, module)
        elif isinstance(module, _TRANSLATORS):
            entries = _measure_given(data, module, evaluator, value_range, count, None if quick else seed)
        elif evaluator is None:
            assert isinstance(module, Classifier)
            entries = iter([_measure_test_accuracy(data, module, value_range)])
        else:
            entries = iter(())
            if isinstance(module, GaussianMixture):
                entries = measure_mixture(data, module)
            if isinstance(module, Likelihood):
                entries = measure_likelihoods(data, module, conditional=conditional)
            served = sampler or module
            if "SAMPLE" in operations:
                assert isinstance(served, Sampler)
                training_seed = None if quick or not conditional or count < SAMPLES else seed
                drawn = _measure_generator(data, served, evaluator, conditional, value_range, training_seed, count)
                entries = chain(entries, drawn)
            if {"ENCODE", "DECODE"} <= set(operations) and not conditional and value_range == _UNIT:
                entries = chain(entries, measure_latents(data, module, evaluator, operations))
                entries = chain(entries, measure_directions(module, data.test, directions))
        for quality in entries:
            bar.update()
            bar.set_postfix_str(quality.metric)
            found.append(quality)
    return tuple(found)


def measure_training_value(
    data: TrainingData, module: Sampler, *, value_range: tuple[float, float], seed: int
) -> Quality:
    """Train three classifiers on samples and three on real rows, which takes minutes, and test them on real rows.

    They are trained by the recipe of the data set's classifier. The generator is conditional, on the CPU, and returns
    floats in `value_range`. The seed is that of the first run's classifiers; each later run has the next.
    """
    recipe, labels, count = classifier_of(data.name), data.train.labels, len(data.test.labels)
    hits, real = [], []
    for run in tqdm(range(_TRAINING_RUNS), unit="run", desc="training on samples", disable=None, leave=False):
        images = draw_images(module, _TRAINING_SEED + run, len(labels), labels, value_range=value_range).clone()
        hits.append(_train_and_test(recipe, data, Split(images=images, labels=labels), seed + run))
        real.append(_train_and_test(recipe, data, data.train, seed + run))
    method = (
        f"accuracy on {count} real test rows of a classifier trained {recipe.steps} steps on {len(labels)} samples "
        f"with the labels of the training rows, mean of {_TRAINING_RUNS} runs from {min(hits) / count:.4f} to "
        f"{max(hits) / count:.4f}, each with its own samples and seed; the real value is trained on those rows, with "
        f"the same seeds; Wilson interval of the mean on {count} rows, which covers the choice of test rows and not "
        f"the training; {OPTIMISTIC}"
    )
    mean, mean_real = sum(hits) / _TRAINING_RUNS, sum(real) / _TRAINING_RUNS
    return _proportion("classification-accuracy-score", mean, count, mean_real / count, method)


def train_classifier(recipe: Recipe, data: TrainingData, rows: Split, *, steps: int, seed: int) -> ConvClassifier:
    """Train a classifier without checkpoints, on the CPU.

    Args:
        recipe: of a classifier.
        data: the real data set; the accuracy on its test rows is shown in the progress bar.
        rows: to train on: the real training rows, or generated ones.
        steps: of the optimiser.
        seed: of initial weights, batches and augmentation.
    """
    with reproducible(seed) as generator:
        task = ClassifierTask(recipe, rows, steps=steps, generator=generator, device=_CPU)
        trained = task.averaged()
        assert isinstance(trained, ConvClassifier)
        with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:
            for number in range(steps):
                task.step(number)
                if not bar.disable and (number + 1) % max(1, steps // _TESTS) == 0:
                    hits = count_correct(trained, data.test.images, data.test.labels)
                    bar.set_postfix(accuracy=f"{hits / len(data.test.labels):.3f}")
                bar.update()
    return trained


def _measure_given(
    data: TrainingData,
    module: nn.Module,
    evaluator: Evaluator | None,
    value_range: tuple[float, float],
    count: int,
    seed: int | None,
) -> Iterator[Quality]:
    """Measure a model of given pictures; without a seed, no classifier is trained."""
    if isinstance(module, ImageDiffusion | ImageRegressor):
        shape = module.config.given
        return measure_translations(data, module, evaluator, shape=shape, value_range=value_range, count=count)
    assert evaluator is not None
    if isinstance(module, CycleGan):
        return measure_translator(data, module, evaluator)
    assert isinstance(module, ClassifierAscent)
    second = None if seed is None else partial(_train_second, data, seed)
    return measure_ascent(data, module, evaluator, second, count=count)


def _train_second(data: TrainingData, seed: int) -> ConvClassifier:
    """Train a classifier of the same data and layers, from other initial weights, in a part of the steps."""
    recipe = classifier_of(data.name)
    return train_classifier(recipe, data, data.train, steps=recipe.steps // _SECOND_PART, seed=_SECOND_SEED + seed)


def _train_and_test(recipe: Recipe, data: TrainingData, rows: Split, seed: int) -> int:
    trained = train_classifier(recipe, data, rows, steps=recipe.steps, seed=seed)
    return count_correct(trained, data.test.images, data.test.labels)


def _measure_generator(
    data: TrainingData,
    module: Sampler,
    evaluator: Evaluator,
    conditional: bool,
    value_range: tuple[float, float],
    training_seed: int | None,
    count: int,
) -> Iterator[Quality]:
    labels = torch.arange(count) % len(data.classes) if conditional else None
    images = draw_images(module, _SEED, count, labels, value_range=value_range)
    if labels is None:
        yield from _measure_unconditional(data, images, evaluator)
    else:
        yield _measure_label_accuracy(data, images, labels, evaluator)
        if training_seed is not None:
            yield measure_training_value(data, module, value_range=value_range, seed=training_seed)
        yield _measure_distances(data, Split(images=images, labels=labels))
    if data.name == "shapes64":
        yield from measure_shapes(images, data.test.images, evaluator)
    yield _measure_duplicates(data, images)
    yield _measure_copies(data, images)


def _measure_test_accuracy(data: TrainingData, module: Classifier, value_range: tuple[float, float]) -> Quality:
    low, high = value_range
    images = data.test.images if value_range == _UNIT else low + (high - low) * data.test.images
    count = len(data.test.labels)
    hits = count_correct(module, images, data.test.labels)
    method = f"share of the {count} held-out test rows whose likeliest class is right; Wilson interval; {OPTIMISTIC}"
    return _proportion("test-accuracy", hits, count, None, method)


def _measure_label_accuracy(data: TrainingData, images: Tensor, labels: Tensor, evaluator: Evaluator) -> Quality:
    classifier, count, drawn = evaluator.classifier, len(data.test.labels), len(images)
    hits = count_correct(classifier, images, labels)
    real = count_correct(classifier, data.test.images, data.test.labels) / count
    method = (
        f"share of {drawn} samples, labels balanced, that {evaluator.name} gives their label; the real value is of "
        f"{count} test rows; Wilson interval; {OPTIMISTIC}"
    )
    return _proportion("label-accuracy", hits, drawn, real, method)


def _measure_unconditional(data: TrainingData, images: Tensor, evaluator: Evaluator) -> Iterator[Quality]:
    """Measure how often a sample is clearly of one class, and the share of the rarest class."""
    clear, counts = _classify(evaluator, images)
    real, count = _classify(evaluator, data.test.images)[0], len(data.test.labels)
    method = (
        f"share of {len(images)} samples to which {evaluator.name} gives a class with {CONFIDENT} or more; the real "
        f"value is of {count} test rows; Wilson interval; {OPTIMISTIC}"
    )
    yield _proportion("clear-digit-share", clear, len(images), real / count, method)
    yield _measure_rarest_class(data, evaluator, counts)


def _measure_rarest_class(data: TrainingData, evaluator: Evaluator, counts: Tensor) -> Quality:
    """Compare with equally many random real rows: the classes of the test rows alone are balanced by construction."""
    _, real = _classify(evaluator, torch.cat([data.train.images, data.test.images]))
    count = int(counts.sum())
    drawn = resampled_smallest_share(real, count, _REAL_DRAWS, torch.Generator().manual_seed(0))
    method = (
        f"share of the rarest of {len(counts)} classes among {count} samples, by {evaluator.name}; the real value "
        f"is that of {count} rows drawn with replacement from all {int(real.sum())} real ones, mean of "
        f"{_REAL_DRAWS} draws; interval from Wilson bounds of every class, corrected for taking the smallest"
    )
    interval = smallest_share_interval(counts.tolist())
    return quality_entry("rarest-class-share", int(counts.min()) / count, interval, float(drawn.mean()), method)


def _measure_distances(data: TrainingData, samples: Split) -> Quality:
    """Compare distances within each class with those of the test rows; the value is that of the worst class."""
    classes = range(len(data.classes))
    size = int(min(torch.bincount(split.labels, minlength=len(classes)).min() for split in (data.train, samples)))
    tests = [data.test.of_class(k) for k in classes]
    drawn = [samples.of_class(k)[:size] for k in classes]
    ratios = [distance_ratio(images, test) for images, test in zip(drawn, tests, strict=True)]
    real = min(distance_ratio(data.train.of_class(k)[:size], tests[k]) for k in classes)
    generator = torch.Generator().manual_seed(0)
    resampled = torch.stack([resampled_distance_ratios(drawn[k], tests[k], _RESAMPLES, generator) for k in classes])
    method = (
        f"mean pixel distance between two of {size} samples of a class over that of its {min(map(len, tests))} to "
        f"{max(map(len, tests))} real test rows, in the worst of {len(classes)} classes "
        f"({data.classes[ratios.index(min(ratios))]}); mean over classes {sum(ratios) / len(ratios):.3f}; the real "
        f"value is the same of {size} training rows a class, in their worst class; interval from bootstrap percentiles "
        f"of every class, corrected for taking the smallest; {OPTIMISTIC}"
    )
    return quality_entry(
        "within-class-distance-ratio", min(ratios), smallest_quantile_interval(resampled), real, method
    )


def _measure_duplicates(data: TrainingData, images: Tensor) -> Quality:
    real = data.train.images[: len(images)]
    method = (
        f"share of {len(images)} samples that are byte-equal to another of them, as UINT8; the real value is of the "
        f"first {len(real)} training rows; Wilson interval"
    )
    share = count_duplicates(real) / len(real)
    return _proportion("duplicate-share", count_duplicates(images), len(images), share, method)


def _measure_copies(data: TrainingData, images: Tensor) -> Quality:
    train, test = data.train.images, data.test.images
    known = set(each_bytes(train))
    method = (
        f"share of {len(images)} samples that are byte-equal to one of the {len(train)} training rows, as UINT8; the "
        f"real value is of {len(test)} test rows; Wilson interval"
    )
    share = count_copies(test, known) / len(test)
    return _proportion("training-copy-share", count_copies(images, known), len(images), share, method)


@torch.inference_mode()
def _classify(evaluator: Evaluator, images: Tensor) -> tuple[int, Tensor]:
    """Count the rows with a confident class, and the rows of each class."""
    classifier = evaluator.classifier
    most = torch.cat([classifier.classify(rows) for rows in torch.split(images, 100)]).max(dim=1)
    clear = int((most.values >= CONFIDENT).sum())
    return clear, torch.bincount(most.indices, minlength=classifier.config.classes)


def _proportion(metric: str, hits: float, count: int, real: float | None, method: str) -> Quality:
    return quality_entry(metric, hits / count, wilson_interval(hits, count), real, method)
