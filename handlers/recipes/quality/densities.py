"""The quality entries of models with exact densities, and of adversarial networks of points with a known law.

A model and its data enter; entries for its card leave. Bayes' rule turns a mixture's densities into a classifier, which
is measured as one; densities of test rows are compared with those of training rows, which a model that memorises finds
likelier. A sampler of points is compared with its law: by its distribution function, and by the modes it finds.

Sources: Guo et al., "On calibration of modern neural networks", 2017, equation 3 (the calibration error); Massart, "The
tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", 1990; Metz et al., "Unrolled generative adversarial
networks", 2017, section 3.1 (modes found).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.models.density import MixtureDensity
from handlers.models.mixture import GaussianMixture
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.points import LAWS
from handlers.recipes.quality.measures import OPTIMISTIC, quality_entry, smallest_share_interval

__all__ = ["calibration_error", "count_near_modes", "kolmogorov_distance", "measure_mixture", "measure_points"]

_SEED = 20264  # of the points that are measured
_POINTS = 100_000
_CHUNK = 1000
_BINS = 15
_RESAMPLES = 1000
_NORMAL = 1.96  # standard errors of a 95 % interval
_KOLMOGOROV, _KOLMOGOROV_MEAN = 1.3581, 0.8687  # 95 % quantile and mean of √n times the distance
_KNOWN = ("line", "plane")  # data whose models are their law
_NEAR, _LEAST_SHARE = 3.0, 0.01  # standard deviations from a mode, and share of the samples, to have found it


@torch.inference_mode()
def measure_mixture(data: TrainingData, mixture: GaussianMixture) -> Iterator[Quality]:
    """Measure a mixture's densities and its classification by Bayes' rule, on the test rows."""
    densities = _log_densities(mixture, data.test.images)
    labels, rows = data.test.labels, torch.arange(len(data.test.labels))
    posterior = torch.softmax(densities, dim=1)
    count, hits = len(labels), int((posterior.argmax(dim=1) == labels).sum())
    method = (
        f"share of the {count} held-out test rows whose likeliest class by Bayes' rule is right; Wilson interval; "
        f"{OPTIMISTIC}"
    )
    yield quality_entry("bayes-accuracy", hits / count, wilson_interval(hits, count), None, method)
    surprise = -torch.log_softmax(densities, dim=1)[rows, labels]
    method = (
        f"mean of -log p(y|x) of the right class, in nats, over {count} test rows; knowing nothing costs "
        f"{math.log(densities.shape[1]):.4f}; interval from percentiles of {_RESAMPLES} resamples; {OPTIMISTIC}"
    )
    means = torch.stack([surprise[rows].mean() for rows in _resample(count)])
    yield quality_entry("true-class-nats", float(surprise.mean()), _percentiles(means), None, method)
    yield _measure_calibration(posterior, labels)
    test = densities[rows, labels]
    method = (
        f"mean of log p(x|y), in nats, of the continuous density of all {mixture.config.pixels} pixels in [0, 1], over "
        f"{count} test rows; normal interval of the mean; {OPTIMISTIC}"
    )
    yield _mean("test-log-density", test, method)
    train = _log_densities(mixture, data.train.images)[torch.arange(len(data.train.labels)), data.train.labels]
    gap, error = float(train.mean() - test.mean()), math.hypot(_standard_error(train), _standard_error(test))
    method = (
        f"mean of log p(x|y), in nats, of {len(train)} training rows, less that of {count} test rows; above 0 where "
        "training rows are remembered; normal interval of the difference"
    )
    yield quality_entry("train-test-gap", gap, (gap - _NORMAL * error, gap + _NORMAL * error), 0.0, method)


@torch.inference_mode()
def measure_points(data: TrainingData, sampler: nn.Module) -> Iterator[Quality]:
    """Measure a sampler of points against the law that its data were drawn from."""
    assert isinstance(sampler, Sampler)
    law = MixtureDensity.from_config(LAWS[data.name])
    points = _draw(sampler)
    if data.name in _KNOWN:
        yield _measure_distribution(law, points)
        yield _measure_own_density(law, points, data.test.images)
    else:
        yield from _measure_modes(law, points, data.test.images)


def calibration_error(posterior: Tensor, labels: Tensor) -> float:
    """Compute the mean distance between confidence and accuracy, over bins of equal width in the confidence.

    Args:
        posterior: (N, classes), rows summing to 1.
        labels: (N,) int64.

    Returns:
        0 to 1; 0 when rows of each confidence are right as often as it says.

    Source: Guo et al. 2017, equation 3.
    """
    confidence, predicted = posterior.max(dim=1)
    excess = confidence.double() - (predicted == labels).double()
    bins = (confidence * _BINS).long().clamp_max(_BINS - 1)
    sums = torch.zeros(_BINS, dtype=torch.float64).scatter_add_(0, bins, excess)
    return float(sums.abs().sum() / len(labels))


def kolmogorov_distance(uniforms: Tensor) -> float:
    """Compute the largest distance between the distribution of values in [0, 1], (N,), and the uniform one."""
    ordered, steps = uniforms.double().sort().values, torch.arange(len(uniforms) + 1, dtype=torch.float64)
    steps /= len(uniforms)
    return float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max())


def count_near_modes(law: MixtureDensity, points: Tensor) -> Tensor:
    """Count the points within three standard deviations of each mode, in every coordinate together; (modes,) int64.

    Args:
        law: of normals that do not overlap.
        points: (N, length).
    """
    means, deviations = (torch.tensor(rows, dtype=torch.float64) for rows in (law.config.means, law.config.deviations))
    distances = ((points.double()[:, None] - means) / deviations).norm(dim=2)  # (N, modes)
    nearest = distances.min(dim=1)
    return torch.bincount(nearest.indices[nearest.values <= _NEAR], minlength=len(means))


def _measure_calibration(posterior: Tensor, labels: Tensor) -> Quality:
    error, count = calibration_error(posterior, labels), len(labels)
    resampled = torch.tensor([calibration_error(posterior[rows], labels[rows]) for rows in _resample(count)])
    low, high = _percentiles(resampled)
    method = (
        f"expected calibration error of the likeliest class on {count} test rows, in {_BINS} bins of its probability; "
        f"interval from percentiles of {_RESAMPLES} resamples; {OPTIMISTIC}"
    )
    return quality_entry("calibration-error", error, (min(low, error), max(high, error)), None, method)


def _measure_distribution(law: MixtureDensity, points: Tensor) -> Quality:
    uniforms = law.distribution(points)
    distance = max(map(kolmogorov_distance, uniforms.unbind(dim=1)))
    error = _KOLMOGOROV / math.sqrt(_POINTS)
    method = (
        f"Kolmogorov-Smirnov distance of {_POINTS} samples from the distribution function, of the worst coordinate "
        "given those before it; the real value is the mean of one coordinate of an exact sampler; interval by the "
        "inequality of Dvoretzky, Kiefer, Wolfowitz and Massart"
    )
    real = _KOLMOGOROV_MEAN / math.sqrt(_POINTS)
    return quality_entry("kolmogorov-distance", distance, (max(0.0, distance - error), distance + error), real, method)


def _measure_own_density(law: MixtureDensity, points: Tensor, real: Tensor) -> Quality:
    method = (
        f"mean of log p(x), in nats, over {_POINTS} samples, which is minus the entropy; the real value is of "
        f"{len(real)} test points; normal interval of the mean"
    )
    return _mean("sample-log-density", _score(law, points), method, real=float(_score(law, real).mean()))


def _measure_modes(law: MixtureDensity, points: Tensor, real: Tensor) -> Iterator[Quality]:
    """Count the modes that samples find, and the samples that are near one."""
    counts, expected = (count_near_modes(law, rows) for rows in (points, real))
    bounds = [wilson_interval(count, len(points)) for count in counts.tolist()]
    found = [sum(bound >= _LEAST_SHARE for bound in ends) for ends in zip(*bounds, strict=True)]
    modes = int((counts >= _LEAST_SHARE * len(points)).sum())
    method = (
        f"modes of {len(counts)} that {_LEAST_SHARE:.0%} or more of {_POINTS} samples lie within {_NEAR:g} standard "
        f"deviations of; the real value is of {len(real)} test points; interval from Wilson bounds of every mode"
    )
    real_modes = int((expected >= _LEAST_SHARE * len(real)).sum())
    yield quality_entry("modes-found", modes, (found[0], found[1]), real_modes, method)
    near, expected_near = int(counts.sum()), int(expected.sum())
    method = (
        f"share of {_POINTS} samples within {_NEAR:g} standard deviations of a mode; the real value is of {len(real)} "
        "test points; Wilson interval"
    )
    yield quality_entry(
        "near-mode-share", near / _POINTS, wilson_interval(near, _POINTS), expected_near / len(real), method
    )
    method = (
        f"share of the rarest of {len(counts)} modes among the samples near one; the real value is of {len(real)} test "
        "points; interval from Wilson bounds of every mode, corrected for taking the smallest"
    )
    least, interval = int(counts.min()) / max(1, near), smallest_share_interval(counts.tolist())
    yield quality_entry("rarest-mode-share", least, interval, int(expected.min()) / expected_near, method)


def _resample(count: int) -> Iterator[Tensor]:
    """Draw the rows of each resample with replacement, (count,)."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(count, (count,), generator=generator) for _ in range(_RESAMPLES))


def _percentiles(values: Tensor) -> tuple[float, float]:
    return float(values.quantile(0.025)), float(values.quantile(0.975))


def _draw(sampler: Sampler) -> Tensor:
    """Draw points, (N, length)."""
    parts = []
    for start in range(0, _POINTS, _CHUNK):
        noise = Noise(addresses=Addresses.of_range(_SEED, start, _CHUNK), device=torch.device("cpu"))
        parts.append(sampler.sample(noise, None, Draw(), Deadline()).float())  # as they are served
    return torch.cat(parts)


def _score(law: MixtureDensity, points: Tensor) -> Tensor:
    noise = Noise(addresses=Addresses.of_range(0, 0, len(points)), device=torch.device("cpu"))
    return law.score(points, None, noise, Draw(), Deadline())[:, 0]


def _log_densities(mixture: GaussianMixture, images: Tensor) -> Tensor:
    return torch.cat([mixture.log_densities(rows) for rows in torch.split(images, _CHUNK)])


def _mean(metric: str, values: Tensor, method: str, *, real: float | None = None) -> Quality:
    mean, error = float(values.mean()), _NORMAL * _standard_error(values)
    return quality_entry(metric, mean, (mean - error, mean + error), real, method)


def _standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))
