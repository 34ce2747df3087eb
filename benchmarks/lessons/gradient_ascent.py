"""Pictures by gradient ascent on a classifier's score, starting from noise.

No real picture is used. The classifier is confident about the results, which show no digit.
Source: Nguyen, Yosinski, Clune, "Deep neural networks are easily fooled", 2015 (section 2, gradient ascent).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.recipes.reproducible import reproducible

__all__ = ["ascend"]

_RATE = 0.05  # of Adam, on pixels in [0, 1]
_BATCH = 250


def ascend(
    classifier: ConvClassifier, labels: Tensor, *, steps: int = 60, seed: int = 0, log: Callable[[str], None] = print
) -> Tensor:
    """Create one picture for each label.

    Args:
        classifier: reads (B, C, H, W) in [0, 1].
        labels: (N,) int64, the target class of each.
        steps: of ascent.
        seed: of the initial noise, uniform in every pixel.
        log: called with progress messages.

    Returns:
        (N, C, H, W) uint8.
    """
    config = classifier.config
    shape = (len(labels), config.channels, config.height, config.width)
    parts = []
    with reproducible(seed) as generator:
        noise = torch.rand(shape, generator=generator)
        for place, (images, targets) in enumerate(zip(noise.split(_BATCH), labels.split(_BATCH), strict=True)):
            parts.append(_ascend(classifier, images, targets, steps))
            log(f"gradient ascent: {min((place + 1) * _BATCH, len(labels))} of {len(labels)} pictures")
    return torch.cat(parts)


def _ascend(classifier: ConvClassifier, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    x = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=_RATE)
    for _ in range(steps):
        (x.grad,) = torch.autograd.grad(nn.functional.cross_entropy(classifier(x), labels, reduction="sum"), x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return (x.detach() * 255).round().to(torch.uint8)
