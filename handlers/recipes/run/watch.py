"""When a training run is lost: rules over what its losses were and what its probes saw.

Numbers enter, a sentence leaves, or None. Nothing here looks at a clock or a tensor, so a run is stopped at the same
step every time. A run diverges when a number is no longer one; it collapses when a class it had learned is lost, or
when its samples of a class come out alike, which is how adversarial training fails most often.

Source: Goodfellow, "NIPS 2016 tutorial: generative adversarial networks", 2016, section 5.1 (how training fails).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "LARGEST_LOSS", "LATE_SHARE", "LEARNED_ACCURACY", "LOST_ACCURACY", "LOWEST_RATIO", "LOWEST_SHARE_OF_BEST",
    "WARM_UP_SHARE", "WARM_UP_STEPS", "Look", "find_collapse", "find_divergence", "is_healthy",
]  # fmt: skip

LARGEST_LOSS = 1e9
"""A loss beyond this, either way, will not come back."""

WARM_UP_SHARE, WARM_UP_STEPS = 0.1, 1000
"""No collapse is seen in the first tenth of the steps, nor in the first 1000."""

LEARNED_ACCURACY, LOST_ACCURACY = 0.5, 0.05
"""A class is lost when its label accuracy falls below the second after it had reached the first."""

LOWEST_RATIO, LATE_SHARE = 0.25, 0.5
"""Least mean distance between samples of a class, as a share of that between real ones, after half of the steps. Before
that it may be small: an autoencoder begins with one picture for everything."""

LOWEST_SHARE_OF_BEST = 0.5
"""The same as a share of the best since the warm-up, from there on, once that was `LOWEST_RATIO`; it counts as 1 at
most, since noise is far apart, too."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a probe saw.

    Attributes:
        step: how many had been taken.
        accuracies: label accuracy of each class, in [0, 1]; empty when there are no classes to ask for.
        ratio: mean distance between samples of a class over that between real ones; None for a classifier.
    """

    step: int
    accuracies: tuple[float, ...] = ()
    ratio: float | None = None


def find_divergence(losses: Mapping[str, float]) -> str | None:
    """Say which loss is not finite any more, or might as well not be."""
    for name, loss in losses.items():
        if not abs(loss) <= LARGEST_LOSS:  # NaN is not, either
            return f"the {name} loss is {loss:g}" if name != "loss" else f"the loss is {loss:g}"
    return None


def find_collapse(looks: Sequence[Look], *, classes: Sequence[str], steps: int) -> str | None:
    """Say what has collapsed, if the last two looks agree on it.

    Args:
        looks: all so far, in order.
        classes: names of the classes the accuracies belong to.
        steps: of the whole run.
    """
    if len(looks) < 2:
        return None
    before, now = (_signs_of(looks[:count], steps) for count in (len(looks) - 1, len(looks)))
    if lost := sorted(before.lost & now.lost):
        return _describe_lost(looks, lost, classes)
    if before.alike and now.alike:
        return f"samples of a class come out alike: {now.alike}"
    return None


def is_healthy(looks: Sequence[Look], *, steps: int) -> bool:
    """Tell whether the last look shows no sign of a collapse; before the first, there is none."""
    if not looks:
        return True
    signs = _signs_of(looks, steps)
    return not signs.lost and not signs.alike


@dataclass(frozen=True, kw_only=True)
class _Signs:
    lost: frozenset[int] = frozenset()
    alike: str = ""


def _signs_of(looks: Sequence[Look], steps: int) -> _Signs:
    """What the last of some looks hints at."""
    now, warm_up = looks[-1], max(WARM_UP_STEPS, math.ceil(WARM_UP_SHARE * steps))
    if now.step <= warm_up:
        return _Signs()
    best = _best_accuracies(looks)
    lost = {k for k, share in enumerate(now.accuracies) if share < LOST_ACCURACY and best[k] >= LEARNED_ACCURACY}
    return _Signs(lost=frozenset(lost), alike=_describe_alike([look for look in looks if look.step > warm_up], steps))


def _best_accuracies(looks: Sequence[Look]) -> list[float]:
    return [max(shares) for shares in zip(*(look.accuracies for look in looks), strict=True)]


def _describe_alike(looks: Sequence[Look], steps: int) -> str:
    """Say how far the last look's ratio has fallen; "" when it is far enough up."""
    ratio = looks[-1].ratio
    if ratio is None:
        return ""
    best = min(1.0, max(look.ratio or 0.0 for look in looks))
    is_late = looks[-1].step > LATE_SHARE * steps
    if best >= LOWEST_RATIO and ratio < LOWEST_SHARE_OF_BEST * best:
        return f"their distance has fallen from {best:.2f} to {ratio:.2f} of that between real pictures"
    if is_late and ratio < LOWEST_RATIO:
        return f"their distance is {ratio:.2f} of that between real pictures"
    return ""


def _describe_lost(looks: Sequence[Look], lost: Sequence[int], classes: Sequence[str]) -> str:
    best, now = _best_accuracies(looks), looks[-1].accuracies
    named = [f"{classes[k]} (label accuracy {now[k]:.2f}, after {best[k]:.2f})" for k in lost]
    return f"{'a class was' if len(named) == 1 else 'classes were'} lost: {', '.join(named)}"
