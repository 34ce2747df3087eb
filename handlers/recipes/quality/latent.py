"""Quality of models with a latent space: reconstructions, denoising, how much of the space decodes, and likelihoods.

A module with its data set enters; quality entries of its card leave. Pictures are measured as floats: codes and
reconstructions are served as such, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fount.address import Addresses, Stream
from fount.intervals import wilson_interval
from handlers.cards.card import OperationName, Quality
from handlers.family import Deadline, Decoder, Draw, Encoder, Noise, Sampler, Scorer
from handlers.recipes.data.load import TrainingData
from handlers.recipes.latents import encode_rows
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.noise import add_noise, noise_at
from handlers.recipes.quality.measures import CONFIDENT, draw_images, mean_entry, quality_entry

__all__ = ["measure_latents"]

_CHUNK = 100
_SAMPLES, _SEED = 10_000, 20261
_GRID, _REACH = 40, 3  # points a side of a plane of codes, and half a side in standard deviations
_NOISE_LEVELS = (0.1, 0.3, 0.5)
_NOISY_ROWS = 2000
_SCORED_ROWS, _IMPORTANCE_SAMPLES, _BINARY_SEED = 2000, 100, 20264
_CPU = torch.device("cpu")


@torch.inference_mode()
def measure_latents(
    data: TrainingData, module: nn.Module, evaluator: Evaluator, operations: tuple[OperationName, ...]
) -> Iterator[Quality]:
    """Measure an unconditional model with a latent space, whose floats are in [0, 1]."""
    assert isinstance(module, Encoder)
    assert isinstance(module, Decoder)
    images = data.test.images
    restored = torch.cat([module.decode(module.encode(rows, None)[0], None) for rows in torch.split(images, _CHUNK)])
    yield from _measure_reconstruction(images, restored)
    yield _clear_share("reconstruction-clear-share", f"reconstructions of {len(images)} test rows", restored, evaluator)
    if "SAMPLE" not in operations:
        yield from _measure_denoising(images[:_NOISY_ROWS], module)
        return
    assert isinstance(module, Sampler)
    if hasattr(module, "fit_prior"):
        naive = _Naive(module)
        drawn = draw_images(naive, _SEED, _SAMPLES, None, value_range=(0.0, 1.0))
        yield _clear_share("naive-clear-share", f"{_SAMPLES} samples of codes of N(0, 1)", drawn, evaluator)
    latents = encode_rows(module, data.train.images)
    if latents.shape[1] == 2:
        yield _measure_plane(module, latents, evaluator)
    if module.encode(images[:1], None)[1] is not None:
        yield _measure_sharpness(images, module)
    if "SCORE" in operations:
        assert isinstance(module, Scorer)
        yield from _measure_likelihood(images[:_SCORED_ROWS], module)


def _measure_reconstruction(images: Tensor, restored: Tensor) -> Iterator[Quality]:
    count = len(images)
    squares = ((restored - images) ** 2).flatten(1).mean(dim=1)
    yield mean_entry("reconstruction-mse", squares, f"mean squared error of a pixel of {count} test rows, in [0, 1]")
    clipped = restored.clamp(1e-6, 1 - 1e-6)
    entropy = nn.functional.binary_cross_entropy(clipped, images, reduction="none").flatten(1).mean(dim=1)
    floor = float(nn.functional.binary_cross_entropy(images.clamp(1e-6, 1 - 1e-6), images))
    method = (
        f"mean cross-entropy of a pixel of {count} test rows, in nats, reconstructions clipped to 1e-6; perfect "
        f"reconstructions of these grey pixels have {floor:.4f}"
    )
    yield mean_entry("reconstruction-bce", entropy, method)


@torch.inference_mode()
def _clear_share(metric: str, what: str, images: Tensor, evaluator: Evaluator) -> Quality:
    parts = [evaluator.classifier.classify(rows).amax(dim=1) for rows in torch.split(images, _CHUNK)]
    clear = int((torch.cat(parts) >= CONFIDENT).sum())
    method = f"share of {what} to which {evaluator.name} gives a class with {CONFIDENT} or more; Wilson interval"
    return quality_entry(metric, clear / len(images), wilson_interval(clear, len(images)), None, method)


def _measure_denoising(images: Tensor, module: nn.Module) -> Iterator[Quality]:
    assert isinstance(module, Encoder)
    assert isinstance(module, Decoder)
    noise = noise_at(_SEED, tuple(images.shape))
    for level in _NOISE_LEVELS:
        noisy = add_noise(images, torch.full((len(images),), level), noise)
        parts = torch.split(noisy, _CHUNK)
        restored = torch.cat([module.decode(module.encode(rows, None)[0], None) for rows in parts])
        before, after = _psnr(noisy, images), _psnr(restored, images)
        method = (
            f"how much the peak signal-to-noise ratio of {len(images)} test rows rises, in decibels, from normal noise "
            f"of standard deviation {level:g}, clipped to [0, 1]; mean before "
            f"{float(before.mean()):.2f}, after {float(after.mean()):.2f}"
        )
        yield mean_entry(f"psnr-gain-{level:g}", after - before, method)


def _psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each picture, (N,), in decibels, for a peak of 1."""
    return -10 * torch.log10(((images - truth) ** 2).flatten(1).mean(dim=1))


def _measure_plane(module: nn.Module, latents: Tensor, evaluator: Evaluator) -> Quality:
    """Decode a grid within three standard deviations of the mean code, in each coordinate.

    Codes of a standard normal prior fill this square but for its corners; those of a plain autoencoder leave gaps.
    """
    assert isinstance(module, Decoder)
    mean, reach = latents.mean(dim=0), _REACH * latents.std(dim=0)
    axes = [torch.linspace(float(mean[k] - reach[k]), float(mean[k] + reach[k]), _GRID) for k in range(2)]
    grid = torch.cartesian_prod(*axes)
    images = torch.cat([module.decode(rows, None) for rows in torch.split(grid, _CHUNK)])
    what = (
        f"the {_GRID}×{_GRID} points of a grid within {_REACH} standard deviations of the mean of the training rows' "
        "codes, in both coordinates,"
    )
    return _clear_share("grid-clear-share", what, images, evaluator)


def sharpness(images: Tensor) -> Tensor:
    """Compute the contrast of neighbouring pixels of each picture, (N,) float64, of (N, C, H, W) in [0, 1].

    It is the mean square of differences to the pixels on the right and below, over the mean square of pixels: blurred
    strokes have less of it, paler or fewer ones as much.
    """
    squares = images.double() ** 2
    right, below = images.diff(dim=3).double() ** 2, images.diff(dim=2).double() ** 2
    return sum(part.flatten(1).mean(dim=1) for part in (right, below)) / squares.flatten(1).mean(dim=1).clamp(min=1e-6)


def _measure_sharpness(images: Tensor, module: Sampler) -> Quality:
    count = len(images)
    drawn = draw_images(module, _SEED, count, None, value_range=(0.0, 1.0))
    method = (
        f"mean square of differences between neighbouring pixels over that of pixels, mean of {count} samples; the "
        f"real value is of {count} test rows"
    )
    return mean_entry("sharpness", sharpness(drawn), method, real=float(sharpness(images).mean()))


def _measure_likelihood(images: Tensor, module: Scorer) -> Iterator[Quality]:
    count = len(images)
    uniforms = Addresses.of_range(_BINARY_SEED, 0, count).uniforms(Stream.LATENT, images[0].numel())
    binary = torch.from_numpy((uniforms < images.flatten(1).numpy()).astype(np.float32)).reshape(images.shape)
    draw, parts = Draw(importance_samples=_IMPORTANCE_SAMPLES), []
    for start in range(0, count, _CHUNK):
        rows = binary[start : start + _CHUNK]
        noise = Noise(addresses=Addresses.of_range(_SEED, start, len(rows)), device=_CPU)
        parts.append(module.score(rows, None, noise, draw, Deadline()))
    scores = torch.cat(parts)
    what = f"of {count} test rows, each pixel drawn as 0 or 1 with its grey level as probability, in nats"
    yield mean_entry("test-elbo", scores[:, 0], f"evidence lower bound {what}; {_IMPORTANCE_SAMPLES} latents a row")
    method = f"importance-weighted bound of {_IMPORTANCE_SAMPLES} latents {what}"
    yield mean_entry("test-iwae", scores[:, 1], method)


class _Naive(nn.Module):
    """A sampler that draws codes of N(0, 1)."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self._sampler = sampler

    @classmethod
    def from_config(cls, config: object) -> _Naive:
        """Fail: it wraps an existing module."""
        raise ValueError("a wrapped sampler is not built from a configuration")

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Sample with `prior_fit` 0."""
        return self._sampler.sample(noise, labels, Draw(prior_fit=0.0), deadline)
