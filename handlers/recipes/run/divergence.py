"""Detect training runs that diverge or collapse, from their losses and the snapshots of their probes.

Numbers enter; a sentence leaves, or None. No clock and no tensor is read, so a run is stopped at the same step every
time. A run diverges when a number is no longer finite. It collapses when a class it had learned is lost, or when its
samples of a class become alike, which is the most frequent failure of adversarial training.

Source: Goodfellow, "NIPS 2016 tutorial: generative adversarial networks", 2016, section 5.1 (failures of training).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from handlers.recipes.run.history import Snapshot

__all__ = [
    "LATE_SHARE", "LEARNED_ACCURACY", "LOST_ACCURACY", "MAX_LOSS", "MIN_RATIO", "MIN_SHARE_OF_BEST", "WARM_UP_SHARE",
    "WARM_UP_STEPS", "find_collapse", "find_divergence", "is_healthy",
]  # fmt: skip

MAX_LOSS = 1e9
"""A loss with a larger absolute value does not recover."""

WARM_UP_SHARE, WARM_UP_STEPS = 0.1, 1000
"""No collapse is reported in the first tenth of the steps, nor in the first 1000."""

LEARNED_ACCURACY, LOST_ACCURACY = 0.5, 0.05
"""A class is lost when its label accuracy falls below the second value after it had reached the first."""

MIN_RATIO, LATE_SHARE = 0.25, 0.5
"""Least mean distance between samples of a class, as a share of that between real ones, after half of the steps. Before
that it may be small: an autoencoder starts with one picture for everything."""

MIN_SHARE_OF_BEST = 0.5
"""Least ratio as a share of the best since the warm-up, if that was at least `MIN_RATIO`; the best counts as 1 at most,
since noise has large distances, too."""


def find_divergence(losses: Mapping[str, float]) -> str | None:
    """Name the loss that is not finite or too large; None when there is none."""
    for name, loss in losses.items():
        if not abs(loss) <= MAX_LOSS:  # true for NaN
            return f"the {name} loss is {loss:g}" if name != "loss" else f"the loss is {loss:g}"
    return None


def find_collapse(snapshots: Sequence[Snapshot], *, classes: Sequence[str], steps: int) -> str | None:
    """Describe a collapse that the last two of all snapshots so far show; None when there is none.

    `classes` names the classes of the accuracies; `steps` is the length of the whole run.
    """
    if len(snapshots) < 2:
        return None
    (lost_before, alike_before), (lost, alike) = _symptoms(snapshots[:-1], steps), _symptoms(snapshots, steps)
    if both := sorted(lost_before & lost):
        return _describe_lost(snapshots, both, classes)
    return f"samples of a class are alike: {alike}" if alike_before and alike else None


def is_healthy(snapshots: Sequence[Snapshot], steps: int) -> bool:
    """Whether the last snapshot shows no symptom of a collapse; true before the first."""
    return not snapshots or not any(_symptoms(snapshots, steps))


def _symptoms(snapshots: Sequence[Snapshot], steps: int) -> tuple[set[int], str]:
    """Find the classes that are lost in the last snapshot, and describe in what way samples are alike."""
    now, warm_up = snapshots[-1], max(WARM_UP_STEPS, math.ceil(WARM_UP_SHARE * steps))
    if now.step <= warm_up:
        return set(), ""
    best = _best_accuracies(snapshots)
    lost = {k for k, share in enumerate(now.accuracies) if share < LOST_ACCURACY and best[k] >= LEARNED_ACCURACY}
    later = [snapshot for snapshot in snapshots if snapshot.step > warm_up]
    return lost, _describe_alike(later, steps)


def _best_accuracies(snapshots: Sequence[Snapshot]) -> list[float]:
    return [max(shares) for shares in zip(*(snapshot.accuracies for snapshot in snapshots), strict=True)]


def _describe_alike(snapshots: Sequence[Snapshot], steps: int) -> str:
    """Describe how far the last ratio has fallen; "" when it is large enough."""
    ratio = snapshots[-1].ratio
    if ratio is None:
        return ""
    best = min(1.0, max(snapshot.ratio or 0.0 for snapshot in snapshots))
    if best >= MIN_RATIO and ratio < MIN_SHARE_OF_BEST * best:
        return f"their distance has fallen from {best:.2f} to {ratio:.2f} of that between real pictures"
    if snapshots[-1].step > LATE_SHARE * steps and ratio < MIN_RATIO:
        return f"their distance is {ratio:.2f} of that between real pictures"
    return ""


def _describe_lost(snapshots: Sequence[Snapshot], lost: Sequence[int], classes: Sequence[str]) -> str:
    best, now = _best_accuracies(snapshots), snapshots[-1].accuracies
    named = [f"{classes[k]} (label accuracy {now[k]:.2f}, after {best[k]:.2f})" for k in lost]
    return f"{'a class was' if len(named) == 1 else 'classes were'} lost: {', '.join(named)}"
