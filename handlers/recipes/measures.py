"""What a recipe measures before it writes a card: pictures drawn, labels counted, distances between pictures.

These are the few numbers a card carries; the evaluation service computes the rest from the running system.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fount.address import Addresses
from handlers.family import Classifier, Deadline, Draw, Noise, Sampler

__all__ = ["distance_ratio", "draw_images", "label_accuracy", "resampled_distance_ratios", "resampled_smallest_share"]

_CPU = torch.device("cpu")
_CHUNK = 1000


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
        (resamples,) ratios.
    """
    above, below = (_resampled_means(side.flatten(1), resamples, generator) for side in (images, real))
    return above / below


def _resampled_means(rows: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Mean distance between two different rows of (N, D), each time among N drawn again, (resamples,)."""
    count = len(rows)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    times = torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(resamples, count, dtype=torch.float64)
    )
    total = ((times @ torch.cdist(rows, rows).double()) * times).sum(dim=1)  # (R, N) · (N, N) -> (R, N) -> (R,)
    return total / (count**2 - (times**2).sum(dim=1))
