"""The table and the picture of the scores: every number as mean and 95 % interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from scipy import stats

from benchmarks.imbalance.learning import Score

__all__ = ["Interval", "interval_over_seeds", "scores_to_markdown", "scores_to_picture"]

Interval = tuple[float, float, float]
"""Mean, low end, high end."""

_COLUMNS = (
    ("recall of the reduced class", "cut_recall"),
    ("precision of the reduced class", "cut_precision"),
    ("mean recall of the others", "other_recall"),
    ("accuracy", "accuracy"),
)


def interval_over_seeds(values: Sequence[float]) -> Interval:
    """Compute the mean and its 95 % interval by Student's t; it covers the seeds, not the choice of test rows.

    Args:
        values: one for each seed, 2 or more.
    """
    mean = sum(values) / len(values)
    variance = sum((each - mean) ** 2 for each in values) / (len(values) - 1)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))
    return mean, mean - half, mean + half


def scores_to_markdown(scores: Mapping[str, Sequence[Score]], rows: Mapping[str, int]) -> str:
    """Format the table with one row for each arm."""
    lines = ["| training rows | rows | " + " | ".join(title for title, _ in _COLUMNS) + " |"]
    lines.append("|---|---|" + "---|" * len(_COLUMNS))
    for arm, seen in scores.items():
        cells = [_cell(interval_over_seeds([getattr(score, field) for score in seen])) for _, field in _COLUMNS]
        lines.append(f"| {arm} | {rows[arm]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval) -> str:
    mean, low, high = (100 * min(max(each, 0.0), 1.0) for each in interval)  # Student's t is unbounded, a share is not
    return f"{mean:.2f} % [{low:.2f}, {high:.2f}]"


def scores_to_picture(scores: Mapping[str, Sequence[Score]], file: Path) -> None:
    """Plot recall of the reduced class and accuracy: a dot for each seed, a bar for the interval of the mean."""
    figure = Figure(figsize=(9, 3.6), dpi=110)
    for place, (title, field) in enumerate((_COLUMNS[0], _COLUMNS[3])):
        axes = figure.add_subplot(1, 2, place + 1)
        for k, seen in enumerate(scores.values()):
            values = [100 * getattr(score, field) for score in seen]
            mean, low, high = interval_over_seeds(values)
            axes.plot([low, high], [k, k], color="#4477aa", linewidth=3, alpha=0.5)
            axes.plot(values, [k] * len(values), "o", color="#4477aa", markersize=4)
            axes.plot([mean], [k], "|", color="black", markersize=12)
            axes.annotate(f"{mean:.1f}", (mean, k), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
        axes.set_yticks(range(len(scores)), list(scores) if place == 0 else [""] * len(scores))
        axes.invert_yaxis()
        axes.set_xlabel("%")
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.margins(y=0.15)
    figure.tight_layout()
    figure.savefig(file)
