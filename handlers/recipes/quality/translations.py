"""Measure models that are given reduced pictures: one answer to each test row, and the test row as the truth.

A picture drawn from the right law is as far from another such picture as from the truth, and has the truth's contrast
and class; the mean of the law has the least squared error and neither.

Source: Blau and Michaeli, "The perception-distortion tradeoff", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.execution.pixels import floats_to_uint8, uint8_to_floats
from handlers.family import Deadline, Draw, Given, Noise, Translator
from handlers.recipes.data.colours import FIRST_SHARE, HUE_SPREAD, hue_cdf, hues_of, saturations_of
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.data.reductions import reduce_images
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.latent import sharpness
from handlers.recipes.quality.measures import (
    OPTIMISTIC,
    count_copies,
    count_correct,
    each_bytes,
    mean_entry,
    quality_entry,
)
from handlers.stepping import GivenStepsSampler, take_steps

__all__ = ["measure_translations", "translate_images"]

_SEED, _OTHER_SEED = 20261, 20264
_PART = 100  # pictures in a batch
_UNIT = (0.0, 1.0)
_LEAST_ERROR = 1e-10  # mean squared, far below that of rounding to levels
_COLOURS = 3
_KOLMOGOROV = 1.36  # of 95 %, over the root of the number of values
_WITHIN = 3  # spreads around one of the two hues of a class


@torch.inference_mode()
def translate_images(
    module: nn.Module, given: Tensor, *, seed: int, value_range: tuple[float, float], start_index: int = 0
) -> Tensor:
    """Answer each given picture by one of the model's, with its default parameters.

    Args:
        module: in evaluation mode.
        given: (N, c, h, w) in [0, 1].
        seed: of the noise.
        value_range: of the floats that the module takes and returns.
        start_index: of the first picture's noise.

    Returns:
        (N, C, H, W) in [0, 1], on the module's device.
    """
    low, high = value_range
    answers = []
    for start in range(0, len(given), _PART):
        part = Given(values=low + (high - low) * given[start : start + _PART])
        addresses = Addresses.of_range(seed, start_index + start, len(part.values))
        answers.append(_translate(module, part, Noise(addresses=addresses, device=given.device)))
    return (torch.cat(answers) - low) / (high - low)


def measure_translations(
    data: TrainingData,
    module: nn.Module,
    evaluator: Evaluator | None,
    *,
    shape: tuple[int, int, int],
    value_range: tuple[float, float],
    count: int,
) -> Iterator[Quality]:
    """Measure the answers to reduced test rows.

    Args:
        data: the answers are compared with its test rows, and those to training rows with these.
        module: on the CPU, in evaluation mode.
        evaluator: labels answers; None leaves that out.
        shape: channels, height and width of what the module is given.
        value_range: of the floats that the module takes and returns.
        count: of the first test rows.
    """
    rows = Split(images=data.test.images[:count], labels=data.test.labels[:count])
    given = _as_served(reduce_images(rows.images, shape))
    answers = _as_served(translate_images(module, given, seed=_SEED, value_range=value_range))
    of_rows = f"{len(given)} answers to the first test rows, one each of seed {_SEED}"
    yield _measure_error(rows.images, answers, of_rows)
    yield _measure_consistency(given, answers, of_rows)
    if evaluator is not None:
        yield _measure_labels(rows, answers, evaluator, of_rows)
    yield _measure_contrast(rows.images, answers, of_rows)
    yield _measure_sharpness(rows.images, answers, of_rows)
    if isinstance(module, GivenStepsSampler):
        others = _as_served(translate_images(module, given, seed=_OTHER_SEED, value_range=value_range))
        yield _measure_spread(rows.images, answers, others, of_rows)
    if shape[0] < _COLOURS == answers.shape[1]:
        yield from _measure_colours(rows, answers, of_rows)
    yield from _measure_memory(data, module, shape, value_range, rows.images, answers)


def _translate(module: nn.Module, given: Given, noise: Noise) -> Tensor:
    if isinstance(module, GivenStepsSampler):
        state = module.begin_given(given, noise, None, Draw())
        return module.finish(take_steps(module, state, range(module.steps(Draw())), noise, None, Draw(), Deadline()))
    assert isinstance(module, Translator)
    return module.translate(given, None, noise, Draw(), Deadline())


def _enlarge(given: Tensor, images: Tensor) -> Tensor:
    """Repeat the pixels of given pictures, and their channel, to the shape of images."""
    return nn.functional.interpolate(given, images.shape[2:]).expand_as(images)


def _as_served(images: Tensor) -> Tensor:
    """Round (N, C, H, W) in [0, 1] to the levels that a client sends or receives."""
    return torch.from_numpy(uint8_to_floats(floats_to_uint8(images.numpy(), _UNIT), _UNIT))


def _squares(first: Tensor, second: Tensor) -> Tensor:
    """Compute the mean squared difference of each two pictures, (N,) float64."""
    return (first.double() - second.double()).square().flatten(1).mean(dim=1)


def _measure_error(images: Tensor, answers: Tensor, of_rows: str) -> Quality:
    """Measure the error in decibels; the interval is that of the mean squared error."""
    errors = _squares(images, answers)
    mean, half = float(errors.mean()), 1.96 * float(errors.std()) / math.sqrt(len(errors))
    value, low, high = (-10 * math.log10(max(error, _LEAST_ERROR)) for error in (mean, mean + half, mean - half))
    method = f"of the mean squared error of {of_rows}; normal interval of that mean; {OPTIMISTIC}"
    return quality_entry("psnr", value, (low, high), None, method)


def _measure_consistency(given: Tensor, answers: Tensor, of_rows: str) -> Quality:
    reduced = reduce_images(answers, (given.shape[1], given.shape[2], given.shape[3]))
    hits, trials = int(((255 * (reduced - given)).abs() <= 1 + 1e-3).sum()), given.numel()
    method = f"share of the {trials} given pixels that {of_rows}, reduce to within one level of 255; Wilson interval"
    return quality_entry("consistency", hits / trials, wilson_interval(hits, trials), None, method)


def _measure_labels(rows: Split, answers: Tensor, evaluator: Evaluator, of_rows: str) -> Quality:
    hits, count = count_correct(evaluator.classifier, answers, rows.labels), len(answers)
    real = count_correct(evaluator.classifier, rows.images, rows.labels) / count
    method = (
        f"share of {of_rows}, that {evaluator.name} gives the row's label; the real value is of the rows; Wilson "
        f"interval; {OPTIMISTIC}"
    )
    return quality_entry("label-accuracy", hits / count, wilson_interval(hits, count), real, method)


def _measure_contrast(images: Tensor, answers: Tensor, of_rows: str) -> Quality:
    own, real = (each.double().flatten(1).var(dim=1) for each in (answers, images))
    method = f"variance of the pixels of {of_rows}, over that of the rows, which is 1 for pictures of their kind"
    return mean_entry("contrast-ratio", own / real.mean(), method, real=1.0)


def _measure_sharpness(images: Tensor, answers: Tensor, of_rows: str) -> Quality:
    method = (
        f"mean square of differences between neighbouring pixels over that of pixels, of {of_rows}; the real value is "
        "of the rows"
    )
    return mean_entry("sharpness", sharpness(answers), method, real=float(sharpness(images).mean()))


def _measure_spread(images: Tensor, answers: Tensor, others: Tensor, of_rows: str) -> Quality:
    between, from_row = _squares(answers, others), _squares(answers, images)
    method = (
        f"mean squared difference of two answers, over that of answer and row, of {of_rows}, and one of seed "
        f"{_OTHER_SEED}; 1 if answers follow the law of the rows, 0 if all are the same"
    )
    return mean_entry("spread-ratio", between / from_row.mean().clamp(min=_LEAST_ERROR), method, real=1.0)


def _measure_colours(rows: Split, answers: Tensor, of_rows: str) -> Iterator[Quality]:
    """Measure the law of hues, and how full colours are."""
    count, real = len(answers), _hue_distances(rows.images, rows.labels)
    saturation = f"saturation of the mean colour of {of_rows}"
    yield mean_entry("saturation", saturations_of(answers), saturation, real=float(saturations_of(rows.images).mean()))
    distances = _hue_distances(answers, rows.labels)
    is_first, is_real_first = distances < 1 / 4, real < 1 / 4
    hits = int(is_first.sum())
    method = f"share of {of_rows}, whose hue is nearer to the first of its class's two; it is {FIRST_SHARE} by the law"
    interval = wilson_interval(hits, count)
    yield quality_entry(
        "first-hue-share", hits / count, interval, float(is_real_first.mean()), f"{method}; Wilson interval"
    )
    near, near_real = (np.abs(each - 0.5 * (each >= 1 / 4)) <= _WITHIN * HUE_SPREAD for each in (distances, real))
    hits = int(near.sum())
    method = f"share of {of_rows}, with a hue within {_WITHIN} spreads of either of its class's two; Wilson interval"
    yield quality_entry("right-hue-share", hits / count, wilson_interval(hits, count), float(near_real.mean()), method)
    statistic, half = _kolmogorov(distances), _KOLMOGOROV / math.sqrt(count)
    method = f"Kolmogorov's distance of the hues of {of_rows}, from the law; interval by Kolmogorov's 95 % quantile"
    interval = (max(0.0, statistic - half), statistic + half)
    yield quality_entry("hue-distance", statistic, interval, _kolmogorov(real), method)


def _hue_distances(images: Tensor, labels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Compute hues minus the first hue of the class, in turns from -¼ to ¾."""
    distances: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        (hues_of(images) - labels / 10 + 1 / 4).remainder(1) - 1 / 4
    ).numpy()
    return distances


def _kolmogorov(distances: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    law, count = hue_cdf(np.sort(distances)), len(distances)
    steps = np.arange(count + 1) / count
    return float(max((steps[1:] - law).max(), (law - steps[:-1]).max()))


def _measure_memory(
    data: TrainingData,
    module: nn.Module,
    shape: tuple[int, int, int],
    value_range: tuple[float, float],
    images: Tensor,
    answers: Tensor,
) -> Iterator[Quality]:
    """Measure whether reduced training rows are answered by these rows, which reduced test rows cannot be."""
    train = data.train.images[: len(images)]
    given, tested = (_as_served(reduce_images(rows, shape)) for rows in (train, images))
    recalled = _as_served(translate_images(module, given, seed=_SEED, value_range=value_range))
    of_rows = f"{len(given)} answers to the first training rows, one each of seed {_SEED}"
    copies = count_copies(recalled, set(each_bytes(data.train.images)))
    method = f"share of {of_rows}, that are byte-equal to one of the {len(data.train.labels)} training rows"
    yield quality_entry(
        "training-copy-share",
        copies / len(given),
        wilson_interval(copies, len(given)),
        None,
        f"{method}; Wilson interval",
    )
    from_train, from_test = _squares(train, recalled), _squares(images, answers).mean()
    usual = (
        _squares(train, _enlarge(given, train)).mean() / _squares(images, _enlarge(tested, images)).mean()
    ) * from_test
    method = (
        f"mean squared difference of answer and row, of {of_rows}, over that of test rows, each relative to "
        "that of the given picture; 1 if training rows are answered like any other, 0 if they are returned"
    )
    yield mean_entry("training-error-ratio", from_train / usual.clamp(min=_LEAST_ERROR), method, real=1.0)
