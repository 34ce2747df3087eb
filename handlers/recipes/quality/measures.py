"""What is measured of a generator or classifier: pictures drawn, labels counted, distances, byte-equal pictures.

Pictures are measured as they are served: of the 256 levels a client gets. These are the few numbers a card carries; the
evaluation service computes the rest from the running system.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from statistics import NormalDist

import torch
from torch import Tensor

from fount.address import Addresses
from handlers.execution.pixels import floats_to_uint8, uint8_to_floats
from handlers.family import Classifier, Deadline, Draw, Noise, Sampler

__all__ = [
    "count_copies",
    "count_duplicates",
    "distance_ratio",
    "draw_images",
    "each_bytes",
    "label_accuracy",
    "resampled_distance_ratios",
    "resampled_smallest_share",
    "smallest_quantile_interval",
    "smallest_share_interval",
    "wilson_interval",
]


_CPU = torch.device("cpu")
_UNIT = (0.0, 1.0)
_CHUNK = 100  # rows; activations of more of 28×28 pixels are handed back to the system and fetched again each time


@torch.inference_mode()
def draw_images(
    sampler: Sampler,
    seed: int,
    count: int,
    labels: Tensor | None,
    *,
    value_range: tuple[float, float],
    device: torch.device = _CPU,
) -> Tensor:
    """Draw samples 0 to count - 1 of a seed, in chunks, as a client gets them by UINT8.

    Args:
        sampler: the family's module, on the device.
        seed: of the addresses.
        count: how many, 1 or more.
        labels: (count,) int64, on the device, or None when unconditional.
        value_range: of the floats the sampler gives.
        device: where to draw.

    Returns:
        (count, C, H, W) float32 in [0, 1], multiples of 1/255, on the device.
    """
    images = []
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        noise = Noise(addresses=Addresses.of_range(seed, start, rows), device=device)
        part = None if labels is None else labels[start : start + rows]
        drawn = sampler.sample(noise, part, Draw(), Deadline()).float().cpu()
        images.append(torch.from_numpy(uint8_to_floats(floats_to_uint8(drawn.numpy(), value_range), _UNIT)))
    return torch.cat(images).to(device)


@torch.inference_mode()
def label_accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> int:
    """Count the rows whose likeliest class is their label.

    Args:
        classifier: reads pictures in [0, 1], on the device of the rows.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
    """
    parts = zip(torch.split(images, _CHUNK), torch.split(labels, _CHUNK), strict=True)
    return sum(int((classifier.classify(rows).argmax(dim=1) == wanted).sum()) for rows, wanted in parts)


def count_duplicates(images: Tensor) -> int:
    """Count the rows that are byte-equal to another row, as UINT8.

    Args:
        images: (N, C, H, W) in [0, 1].
    """
    return sum(times for times in Counter(each_bytes(images)).values() if times > 1)


def count_copies(images: Tensor, known: Set[bytes]) -> int:
    """Count the rows that are byte-equal to some known picture, as UINT8.

    Args:
        images: (N, C, H, W) in [0, 1].
        known: of `each_bytes`.
    """
    return sum(row in known for row in each_bytes(images))


def each_bytes(images: Tensor) -> Iterator[bytes]:
    """Give each picture as the bytes a client gets; compared in full, so that equal means equal.

    Args:
        images: (N, C, H, W) in [0, 1].
    """
    for rows in torch.split(images, _CHUNK):
        yield from (row.tobytes() for row in floats_to_uint8(rows.cpu().numpy(), _UNIT))


def resampled_smallest_share(counts: Tensor, size: int, resamples: int, generator: torch.Generator) -> Tensor:
    """Share of the rarest class in rows drawn with replacement from a set.

    Args:
        counts: (K,) rows of each class in the set.
        size: rows drawn each time.
        resamples: how often.
        generator: of the rows.

    Returns:
        (resamples,) shares.
    """
    classes = torch.repeat_interleave(torch.arange(len(counts)), counts)
    drawn = (classes[torch.randint(len(classes), (size,), generator=generator)] for _ in range(resamples))
    return torch.stack([torch.bincount(rows, minlength=len(counts)).min() / size for rows in drawn])


def distance_ratio(images: Tensor, real: Tensor) -> float:
    """Mean pixel distance between two different samples, over the same for real pictures.

    Args:
        images: (N, C, H, W), N of 2 or more.
        real: (M, C, H, W), M of 2 or more.
    """
    return float(torch.pdist(images.flatten(1)).mean() / torch.pdist(real.flatten(1)).mean())


def resampled_distance_ratios(images: Tensor, real: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Bootstrap `distance_ratio`: both sides are drawn again, with replacement.

    A picture drawn twice lies at distance 0 from itself, which would bias the mean; such pairs are left out.

    Args:
        images: (N, C, H, W).
        real: (M, C, H, W).
        resamples: how often.
        generator: of the rows.

    Returns:
        (resamples,) float64 ratios.
    """
    above, below = (_resampled_means(side.flatten(1), resamples, generator) for side in (images, real))
    return above / below


def _resampled_means(rows: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Mean distance between two different rows of (N, D), each time among N drawn again, (resamples,).

    The product of counts and distances is taken in float32, which is exact enough for a percentile and twice as fast.
    """
    count = len(rows)
    above, distances = torch.triu_indices(count, count, offset=1), torch.zeros(count, count)
    distances[above[0], above[1]] = torch.pdist(rows)  # not cdist, whose products leave a row at a distance from itself
    distances += distances.T.clone()
    means = []
    for part in torch.split(torch.randint(count, (resamples, count), generator=generator), _CHUNK):
        times = torch.zeros(len(part), count).scatter_add_(1, part, torch.ones(1, 1).expand_as(part))  # (r, N)
        total = ((times @ distances) * times).sum(dim=1, dtype=torch.float64)  # (r, N) · (N, N) -> (r, N) -> (r,)
        means.append(total / (count**2 - (times**2).sum(dim=1, dtype=torch.float64)))
    return torch.cat(means)


# FOLDED FROM handlers.recipes.quality.measures:
# 95 % intervals of what a card says: of a proportion, and of the smallest of several estimates. The smallest of
# several estimates lies low, and the class that came out smallest was picked for it: an interval of that class
# alone misses the truth one time in four where ten classes are equally rare. So every class has its own two
# bounds, and the smallest of each are taken. The lower one needs no correction: to lie above the truth it must
# do so in the class that is truly smallest. The upper one lies below the truth as soon as any class's does, so
# each is given a Kth of the tail. Nothing is assumed of how the classes depend on each other. Sources: Wilson,
# "Probable inference, the law of succession, and statistical inference", 1927; Efron 1979 (bootstrap); Berger,
# "Multiparameter hypothesis testing and acceptance sampling", 1982 (intersection-union: the lower bound).


_TAIL = 0.025


def wilson_interval(hits: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Args:
        hits: 0 to trials; a mean over runs on the same trials need not be whole.
        trials: 1 or more.
    """
    return _wilson_bounds(hits, trials, _TAIL)


def smallest_share_interval(counts: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the smallest probability of a multinomial.

    Args:
        counts: of each class; their sum is the number of trials, 1 or more.
    """
    trials = sum(counts)
    low = min(_wilson_bounds(count, trials, _TAIL)[0] for count in counts)
    return low, min(_wilson_bounds(count, trials, _TAIL / len(counts))[1] for count in counts)


def smallest_quantile_interval(resampled: Tensor) -> tuple[float, float]:
    """95 % interval of the smallest of several quantities, from bootstrap percentiles of each.

    Args:
        resampled: (K, R), R estimates of each of K quantities; R of 100·K or more gives the upper tail its few.
    """
    low = resampled.quantile(_TAIL, dim=1).min()
    return float(low), float(resampled.quantile(1 - _TAIL / len(resampled), dim=1).min())


def _wilson_bounds(hits: float, trials: int, tail: float) -> tuple[float, float]:
    """Give bounds, each missed with probability tail.

    Source: Wilson 1927, equation 2.
    """
    share, z = hits / trials, NormalDist().inv_cdf(1 - tail)
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
