"""Pictures made by climbing a classifier's score: from noise, up the gradient of the probability of a class.

Nothing real is looked at. What comes out is what the classifier is surest of, and no digit.
Source: Nguyen, Yosinski, Clune, "Deep neural networks are easily fooled", 2015 (section 2, gradient ascent).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.recipes.run.reproducible import reproducible

__all__ = ["climb"]

_RATE = 0.05  # of Adam, on pixels in [0, 1]
_BATCH = 250


def climb(
    classifier: ConvClassifier, labels: Tensor, *, steps: int = 60, seed: int = 0, say: Callable[[str], None] = print
) -> Tensor:
    """Make one picture a label.

    Args:
        classifier: reads (B, C, H, W) in [0, 1].
        labels: (N,) int64, what each is to be read as.
        steps: of ascent.
        seed: of the noise they begin with, uniform in every pixel.
        say: told how far it is.

    Returns:
        (N, C, H, W) uint8.
    """
    config = classifier.config
    shape = (len(labels), config.channels, config.height, config.width)
    parts = []
    with reproducible(seed) as generator:
        begun = torch.rand(shape, generator=generator)
        for place, (images, wanted) in enumerate(zip(begun.split(_BATCH), labels.split(_BATCH), strict=True)):
            parts.append(_climb(classifier, images, wanted, steps))
            say(f"climbing: {min((place + 1) * _BATCH, len(labels))} of {len(labels)} pictures")
    return torch.cat(parts)


def _climb(classifier: ConvClassifier, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    x = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=_RATE)
    for _ in range(steps):
        (x.grad,) = torch.autograd.grad(nn.functional.cross_entropy(classifier(x), labels, reduction="sum"), x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return (x.detach() * 255).round().to(torch.uint8)
