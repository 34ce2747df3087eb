"""The history of a training run: its losses, the snapshots of its probe, and a picture of both as curves.

The run adds to it at every step; checkpoints contain it, so that curves continue after a resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MAX_LOSSES", "History", "Snapshot", "draw_curves"]

MAX_LOSSES = 1000
"""Losses kept; when there are more, every other is dropped, and from then on half as many are kept."""

_INCHES = (8.0, 6.0)
_DOTS_PER_INCH = 100


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a probe measured after some steps.

    Attributes:
        step: number of steps taken.
        accuracies: label accuracy of each class, in [0, 1]; empty for a model without classes.
        ratio: mean distance between samples of a class over that between real ones; None for a classifier.
        bits: mean of -log2 p(x|y) of test rows, divided by their dimensions; None for a model without likelihoods.
    """

    step: int
    accuracies: tuple[float, ...] = ()
    ratio: float | None = None
    bits: float | None = None


@dataclass(kw_only=True)
class History:
    """Losses and snapshots of a run.

    Attributes:
        losses: (step, named losses) in order; steps count from 1 and are multiples of stride.
        snapshots: all of them.
        stride: steps between two kept losses.
    """

    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    stride: int = 1

    def add_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Keep the losses of a step if its number is a multiple of the stride."""
        if step % self.stride:
            return
        self.losses.append((step, dict(losses)))
        if len(self.losses) > MAX_LOSSES:
            self.stride *= 2
            self.losses = [point for point in self.losses if point[0] % self.stride == 0]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for `from_json`; the key "looks" of snapshots is part of the checkpoint format."""
        return {"stride": self.stride, "losses": self.losses, "looks": [vars(snapshot) for snapshot in self.snapshots]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            stride=int(document["stride"]),
            losses=[(int(step), dict(losses)) for step, losses in document["losses"]],
            snapshots=[Snapshot(**look | {"accuracies": tuple(look["accuracies"])}) for look in document["looks"]],
        )


def draw_curves(history: History, title: str) -> Image.Image:
    """Draw losses above, what snapshots measured below, over steps; 800 × 600 pixels."""
    # Imported here, since it takes a second and a training without pictures does not need it; pyplot has global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="tight")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.set_title(title)
    _plot_losses(above, history)
    _plot_snapshots(below, history)
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
        if axes.get_lines():
            axes.legend(fontsize="small")
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]


def _plot_losses(axes: Axes, history: History) -> None:
    for name in history.losses[-1][1] if history.losses else ():
        points = [(step, losses[name]) for step, losses in history.losses if name in losses]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
    axes.set_ylabel("loss")


def _plot_snapshots(axes: Axes, history: History) -> None:
    labelled = [snapshot for snapshot in history.snapshots if snapshot.accuracies]
    steps = [snapshot.step for snapshot in labelled]
    if labelled:
        mean = [sum(snapshot.accuracies) / len(snapshot.accuracies) for snapshot in labelled]
        axes.plot(steps, mean, marker=".", label="label accuracy")
        axes.plot(steps, [min(snapshot.accuracies) for snapshot in labelled], marker=".", label="of the worst class")
    ratios = [(snapshot.step, snapshot.ratio) for snapshot in history.snapshots if snapshot.ratio is not None]
    if ratios:
        axes.plot(*zip(*ratios, strict=True), marker=".", label="distance within classes / real")
    bits = [(snapshot.step, snapshot.bits) for snapshot in history.snapshots if snapshot.bits is not None]
    if bits:
        axes.plot(*zip(*bits, strict=True), marker=".", label="bits per dimension, test rows")
    axes.set_ylim(0, max([1.2, *(each for _, each in bits)]))
    axes.set_xlabel("step")
