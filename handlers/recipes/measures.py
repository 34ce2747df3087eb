"""What a recipe measures before it writes a card: proportions and distances, each with a 95 % interval.

These are the few numbers a card carries; the evaluation service computes the rest from the running system.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference", 1927; Efron 1979 (bootstrap).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fount.address import Addresses
from handlers.family import Classifier, Deadline, Draw, Noise, Sampler

__all__ = ["bootstrap_distance_ratio", "distance_ratio", "draw_images", "label_accuracy", "wilson_interval"]

_Z_95 = 1.959963984540054  # the 97.5 % quantile of N(0, 1)
_CPU = torch.device("cpu")
_CHUNK = 1000
_RESAMPLES = 400


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Args:
        hits: 0 to trials.
        trials: 1 or more.

    Source: Wilson 1927, equation 2.
    """
    share, square = hits / trials, _Z_95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2)) / (1 + square / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


@torch.inference_mode()
def draw_images(sampler: Sampler, seed: int, count: int, labels: Tensor | None, device: torch.device = _CPU) -> Tensor:
    """Draw samples 0 to count - 1 of a seed, in chunks.

    Args:
        sampler: the family's module, on the device.
        seed: of the addresses.
        count: how many.
        labels: (count,) int64, on the device, or None when unconditional.
        device: where to draw.

    Returns:
        (count, C, H, W) float32 in [0, 1].
    """
    images = []
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        noise = Noise(addresses=Addresses.of_range(seed, start, rows), device=device)
        part = None if labels is None else labels[start : start + rows]
        images.append(sampler.sample(noise, part, Draw(), Deadline()))
    return torch.cat(images)


@torch.inference_mode()
def label_accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> int:
    """Count the rows whose likeliest class is their label."""
    return int((classifier.classify(images).argmax(dim=1) == labels).sum())


def distance_ratio(images: Tensor, real: Tensor) -> float:
    """Mean pixel distance between two different samples, over the same for real pictures.

    Args:
        images: (N, C, H, W), N of 2 or more.
        real: (M, C, H, W), M of 2 or more.
    """
    return float(torch.pdist(images.flatten(1)).mean() / torch.pdist(real.flatten(1)).mean())


def bootstrap_distance_ratio(images: Tensor, real: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """95 % percentile interval of `distance_ratio`, both sides drawn again.

    A picture drawn twice lies at distance 0 from itself, which would bias the mean; such pairs are left out.
    """
    above, below = (torch.cdist(rows.flatten(1), rows.flatten(1)) for rows in (images, real))
    ratios = [_resampled_mean(above, generator) / _resampled_mean(below, generator) for _ in range(_RESAMPLES)]
    low, high = torch.tensor(ratios).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def _resampled_mean(distances: Tensor, generator: torch.Generator) -> float:
    rows = torch.randint(len(distances), (len(distances),), generator=generator)
    different = rows[:, None] != rows[None, :]
    return float(distances[rows][:, rows][different].mean())
