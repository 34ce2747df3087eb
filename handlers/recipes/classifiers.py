"""The recipe of a classifier: cross-entropy on pictures shifted by up to a pixel, with a little noise.

Trained on real rows it labels and embeds what is generated; trained on generated rows and tested on real ones it says
how much of the data a generator has learned.

Source: Ravuri and Vinyals, "Classification accuracy score for conditional generative models", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.recipes.digits import Digits, Split
from handlers.recipes.fitting import Fit, fit, reproducible
from handlers.recipes.measures import label_accuracy

__all__ = ["CLASSIFIER_CONFIG", "CLASSIFIER_STEPS", "train_classifier"]

CLASSIFIER_STEPS = 1500
CLASSIFIER_CONFIG: Mapping[str, int] = MappingProxyType(
    {"height": 8, "width": 8, "channels": 1, "classes": 10, "features": 24, "embedding_dim": 64}
)

_SHIFTED_SHARE = 0.5
_NOISE = 0.08
_SMOOTHING = 0.05
_DECAY = 0.05


def train_classifier(data: Digits, rows: Split, *, steps: int, seed: int, device: torch.device) -> ConvClassifier:
    """Train a classifier.

    Args:
        data: the real data set; its test rows are watched, never learned.
        rows: what to learn: the real training rows, or generated ones.
        steps: optimiser steps.
        seed: of initial weights, batches and augmentation.
        device: where to train.

    Returns:
        The trained module, on the CPU.
    """
    with reproducible(seed) as generator:
        module = ConvClassifier.from_config(CLASSIFIER_CONFIG).to(device)

        def loss(batch: Tensor) -> dict[str, Tensor]:
            images = _augment(rows.images[batch], generator).to(device)
            logits = module(images)
            labels = rows.labels[batch].to(device)
            return {"loss": nn.functional.cross_entropy(logits, labels, label_smoothing=_SMOOTHING)}

        def probe(average: nn.Module) -> dict[str, float]:
            assert isinstance(average, ConvClassifier)
            hits = label_accuracy(average, data.test.images.to(device), data.test.labels.to(device))
            return {"accuracy": hits / len(data.test.labels)}

        trained = fit(module, loss, len(rows.labels), Fit(steps=steps, decay=_DECAY), generator, probe)
        assert isinstance(trained, ConvClassifier)
        return trained.cpu()


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift half of the pictures by up to a pixel and add noise.

    Args:
        images: (B, 1, H, W) in [0, 1].
        generator: of shifts and noise.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    count, _, height, width = images.shape
    kept = torch.rand(count, generator=generator) >= _SHIFTED_SHARE
    shifts = torch.randint(3, (2, count, 1), generator=generator).masked_fill(kept[:, None], 1)  # 1 is no shift
    down, right = shifts[0] + torch.arange(height), shifts[1] + torch.arange(width)  # (B, H), (B, W)
    padded = nn.functional.pad(images, (1, 1, 1, 1))[:, 0]  # (B, H + 2, W + 2)
    shifted = padded[torch.arange(count)[:, None, None], down[:, :, None], right[:, None, :]][:, None]  # (B, 1, H, W)
    return (shifted + _NOISE * torch.randn(shifted.shape, generator=generator)).clamp(0, 1)
