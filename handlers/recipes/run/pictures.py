"""Pictures of a training run: what its probe draws, and curves of what it has seen. Each is written whole or not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from handlers.recipes.run.checkpoints import History, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curves", "write_picture"]

_INCHES = (8.0, 6.0)
_DOTS_PER_INCH = 100


def write_picture(file: Path, image: Image.Image) -> None:
    """Write a PNG.

    Raises:
        OSError: it could not be written; nothing of it is there.
    """
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    write_whole(file, stream.getvalue())


def draw_curves(history: History, title: str) -> Image.Image:
    """Draw losses above, label accuracy and distance ratio below, over steps.

    Args:
        history: of the run, so far.
        title: above all.

    Returns:
        800 × 600 pixels.
    """
    # Loaded here: it takes a second, and a training without pictures does not need it. No pyplot, so no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="tight")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.set_title(title)
    _plot_losses(above, history)
    _plot_looks(below, history)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]


def _plot_losses(axes: Axes, history: History) -> None:
    names = list(history.losses[-1][1]) if history.losses else []
    for name in names:
        points = [(step, losses[name]) for step, losses in history.losses if name in losses]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
    axes.set_ylabel("loss")
    _add_legend(axes)


def _plot_looks(axes: Axes, history: History) -> None:
    judged = [look for look in history.looks if look.accuracies]
    steps = [look.step for look in judged]
    if judged:
        mean = [sum(look.accuracies) / len(look.accuracies) for look in judged]
        axes.plot(steps, mean, marker=".", label="label accuracy")
        axes.plot(steps, [min(look.accuracies) for look in judged], marker=".", label="of the worst class")
    spread = [(look.step, look.ratio) for look in history.looks if look.ratio is not None]
    if spread:
        axes.plot(*zip(*spread, strict=True), marker=".", label="distance within classes / real")
    axes.set_ylim(0, 1.2)
    axes.set_xlabel("step")
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize="small")
