"""Measures of a generator or classifier: label accuracy, distances, equal pictures, and 95 % intervals.

Pictures are measured as they are served, with the 256 levels a client receives. These are the few numbers of a card;
the evaluation service computes others from the running system.

The smallest of several estimates is biased low: an interval of the smallest class alone misses the truth one
time in four when ten classes are equally rare. So both bounds are computed for every class, and the smallest of each is
used. The lower bound needs no correction: to be above the truth it must be so in the class that is truly smallest. The
upper bound is below the truth as soon as that of any class is, so each of K classes is given a Kth of the tail. Nothing
is assumed about the dependence between classes.

Sources: Efron, "Bootstrap methods: another look at the jackknife", 1979; Berger, "Multiparameter hypothesis testing and
acceptance sampling", 1982 (intersection-union: the lower bound).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from statistics import NormalDist

import torch
from torch import Tensor

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.execution.pixels import floats_to_uint8, uint8_to_floats
from handlers.family import Classifier, Deadline, Draw, Noise, Sampler

__all__ = [
    "CONFIDENT",
    "OPTIMISTIC",
    "count_copies",
    "count_correct",
    "count_duplicates",
    "distance_ratio",
    "draw_images",
    "each_bytes",
    "mean_entry",
    "quality_entry",
    "resampled_distance_ratios",
    "resampled_smallest_share",
    "smallest_quantile_interval",
    "smallest_share_interval",
]


OPTIMISTIC = "the test rows also steered choices of the recipe, so values lean optimistic"
"""Ends the method of a metric that compares with test rows."""

_CPU = torch.device("cpu")
_UNIT = (0.0, 1.0)
_DEFAULT_DRAW = Draw()
CONFIDENT = 0.8
"""The probability from which on a picture is clearly of a class."""

_CHUNK = 100  # rows; larger activations of 28×28 pixels are returned to the system and allocated again each time
_TAIL = 0.025
_NORMAL = NormalDist().inv_cdf(1 - _TAIL)


@torch.inference_mode()
def draw_images(
    sampler: Sampler,
    seed: int,
    count: int,
    labels: Tensor | None,
    *,
    value_range: tuple[float, float],
    device: torch.device = _CPU,
    parameters: Draw = _DEFAULT_DRAW,
) -> Tensor:
    """Draw samples 0 to count - 1 of a seed, in chunks, with the pixels a client receives as UINT8.

    Args:
        sampler: the family's module, on the device.
        seed: of the addresses.
        count: how many, 1 or more.
        labels: (count,) int64, on the device, or None when unconditional.
        value_range: of the floats the sampler returns.
        device: where to draw.
        parameters: of all samples.

    Returns:
        (count, C, H, W) float32 in [0, 1], multiples of 1/255, on the device.
    """
    images = []
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        noise = Noise(addresses=Addresses.of_range(seed, start, rows), device=device)
        part = None if labels is None else labels[start : start + rows]
        drawn = sampler.sample(noise, part, parameters, Deadline()).float().cpu()
        images.append(torch.from_numpy(uint8_to_floats(floats_to_uint8(drawn.numpy(), value_range), _UNIT)))
    return torch.cat(images).to(device)


@torch.inference_mode()
def count_correct(classifier: Classifier, images: Tensor, labels: Tensor) -> int:
    """Count the rows of images (N, C, H, W) in [0, 1] whose most likely class is their label; labels: (N,) int64."""
    parts = zip(torch.split(images, _CHUNK), torch.split(labels, _CHUNK), strict=True)
    return sum(int((classifier.classify(rows).argmax(dim=1) == expected).sum()) for rows, expected in parts)


def count_duplicates(images: Tensor) -> int:
    """Count the rows of (N, C, H, W) in [0, 1] that are byte-equal to another row, as UINT8."""
    return sum(times for times in Counter(each_bytes(images)).values() if times > 1)


def count_copies(images: Tensor, known: Set[bytes]) -> int:
    """Count the rows of (N, C, H, W) in [0, 1] that are byte-equal to a known picture, a result of `each_bytes`."""
    return sum(row in known for row in each_bytes(images))


def each_bytes(images: Tensor) -> Iterator[bytes]:
    """Convert each picture of (N, C, H, W) in [0, 1] to the bytes a client receives."""
    for rows in torch.split(images, _CHUNK):
        yield from (row.tobytes() for row in floats_to_uint8(rows.cpu().numpy(), _UNIT))


def resampled_smallest_share(counts: Tensor, size: int, resamples: int, generator: torch.Generator) -> Tensor:
    """Compute the share of the rarest class in `size` rows drawn with replacement from a set, (resamples,).

    Args:
        counts: (K,) rows of each class in the set.
        size: rows drawn each time.
        resamples: number of draws.
        generator: of the rows.
    """
    classes = torch.repeat_interleave(torch.arange(len(counts)), counts)
    drawn = (classes[torch.randint(len(classes), (size,), generator=generator)] for _ in range(resamples))
    return torch.stack([torch.bincount(rows, minlength=len(counts)).min() / size for rows in drawn])


def distance_ratio(images: Tensor, real: Tensor) -> float:
    """Compute the mean pixel distance between two different samples over that between real pictures.

    Both are (N, C, H, W) with two pictures or more.
    """
    return float(torch.pdist(images.flatten(1)).mean() / torch.pdist(real.flatten(1)).mean())


def resampled_distance_ratios(images: Tensor, real: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Bootstrap `distance_ratio`: both sets are resampled with replacement.

    A picture drawn twice has distance 0 from itself, which would bias the mean; such pairs are left out.

    Returns:
        (resamples,) float64 ratios.
    """
    above, below = (_resampled_means(side.flatten(1), resamples, generator) for side in (images, real))
    return above / below


def _resampled_means(rows: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Compute the mean distance between two different rows of (N, D) in each resample of N rows, (resamples,).

    The product of counts and distances is computed in float32, exact enough for a percentile and twice as fast.
    """
    count = len(rows)
    above, distances = torch.triu_indices(count, count, offset=1), torch.zeros(count, count)
    distances[above[0], above[1]] = torch.pdist(rows)  # not cdist, whose rounding gives a row a distance from itself
    distances += distances.T.clone()
    means = []
    for part in torch.split(torch.randint(count, (resamples, count), generator=generator), _CHUNK):
        times = torch.zeros(len(part), count).scatter_add_(1, part, torch.ones(1, 1).expand_as(part))  # (r, N)
        total = ((times @ distances) * times).sum(dim=1, dtype=torch.float64)  # (r, N) · (N, N) -> (r, N) -> (r,)
        means.append(total / (count**2 - (times**2).sum(dim=1, dtype=torch.float64)))
    return torch.cat(means)


def quality_entry(metric: str, value: float, interval: tuple[float, float], real: float | None, method: str) -> Quality:
    """Create an entry of a card, with values rounded to four digits."""
    return Quality(
        metric=metric,
        value=round(value, 4),
        interval=(round(interval[0], 4), round(interval[1], 4)),
        real_value=None if real is None else round(real, 4),
        method=method,
    )


def mean_entry(metric: str, values: Tensor, method: str, *, real: float | None = None) -> Quality:
    """Create the entry of a mean over rows, (N,), with the interval of its normal approximation."""
    mean, error = float(values.double().mean()), float(values.double().std()) / math.sqrt(len(values))
    interval = (mean - _NORMAL * error, mean + _NORMAL * error)
    return quality_entry(metric, mean, interval, real, f"{method}; normal interval of the mean over rows")


def smallest_share_interval(counts: Sequence[int]) -> tuple[float, float]:
    """Compute the 95 % interval of the smallest probability of a multinomial from the count of each class."""
    trials = sum(counts)
    low = min(wilson_interval(count, trials, tail=_TAIL)[0] for count in counts)
    return low, min(wilson_interval(count, trials, tail=_TAIL / len(counts))[1] for count in counts)


def smallest_quantile_interval(resampled: Tensor) -> tuple[float, float]:
    """Compute the 95 % interval of the smallest of K quantities, from bootstrap percentiles of each.

    Args:
        resampled: (K, R) estimates; R of 100·K or more resolves the upper tail.
    """
    low = resampled.quantile(_TAIL, dim=1).min()
    return float(low), float(resampled.quantile(1 - _TAIL / len(resampled), dim=1).min())
