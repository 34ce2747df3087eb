"""Tables of quality entries: of one model for a terminal, and of all cards for the README; and their thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from handlers.cards.card import Card, Quality
from handlers.recipes.catalogue import RECIPES

__all__ = ["meets_threshold", "threshold_text", "to_markdown", "to_text"]

_RATIO = "within-class-distance-ratio"
_AT_MOST = ("duplicate-share", "training-copy-share")
"""Shares whose thresholds are the most that is allowed: 0 for every generator whose recipe names no other."""

_COLUMNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "read as their label": {"label-accuracy": "", "clear-digit-share": "clear: ", "test-accuracy": "real: "},
        "trained on": {"classification-accuracy-score": ""},
        "diversity": {_RATIO: "", "rarest-class-share": "rarest class: "},
    }
)
"""Columns of the README's table: metrics, each with the prefix of its value.

Copies have no column: shipped models have none, which a test proves."""


def threshold_text(recipe: str, metric: str) -> str:
    """Format what a recipe's model must reach, as "≥ 0.95" or "0"; "" without a threshold."""
    if recipe not in RECIPES:
        return ""
    threshold = RECIPES[recipe].thresholds.get(metric)
    if metric in _AT_MOST:
        return f"≤ {threshold:g}" if threshold else "0"
    return "" if threshold is None else f"≥ {threshold:g}"


def meets_threshold(recipe: str, metric: str, value: float) -> bool:
    """Whether a value reaches its threshold; true without a threshold."""
    if recipe not in RECIPES:
        return True
    thresholds = RECIPES[recipe].thresholds
    return value <= thresholds.get(metric, 0) if metric in _AT_MOST else value >= thresholds.get(metric, float("-inf"))


def to_text(card: Card, quality: Sequence[Quality], *, verbose: bool) -> str:
    """Format a model's measured entries for a terminal, one line a metric; `verbose` adds the method below each."""
    recipe = card.recipe.name if card.recipe else ""
    rows = [
        ("metric", "value", "95 % interval", "real data", "required"),
        *(_cells(recipe, entry) for entry in quality),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    methods = [f"\n      {entry.method}" if verbose else "" for entry in quality]
    return "\n".join([card.name, *(line.rstrip() + more for line, more in zip(lines, ["", *methods], strict=True))])


def to_markdown(cards: Sequence[Card]) -> str:
    """Format the README's table of cards, in the order of the catalogue, then other models by name.

    Transformers are left out: they are not learned, so there is nothing to measure.
    """
    order = list(RECIPES)
    learned = [card for card in cards if "TRANSFORM" not in card.operations]
    ranked = sorted(learned, key=lambda card: (order.index(card.name) if card.name in order else len(order), card.name))
    head = ["model", *_COLUMNS]
    rows = [head, ["---"] * len(head), *map(_markdown_cells, ranked)]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in rows)


def _cells(recipe: str, entry: Quality) -> tuple[str, str, str, str, str]:
    missed = "" if meets_threshold(recipe, entry.metric, entry.value) else " (missed)"
    real = "" if entry.real_value is None else f"{entry.real_value:.4f}"
    interval = "[{:.4f}, {:.4f}]".format(*entry.interval)
    return entry.metric, f"{entry.value:.4f}", interval, real, threshold_text(recipe, entry.metric) + missed


def _markdown_cells(card: Card) -> Iterator[str]:
    yield f"`{card.name}`"
    for metrics in _COLUMNS.values():
        yield ", ".join(metrics[entry.metric] + _describe(entry) for entry in card.quality if entry.metric in metrics)


def _describe(entry: Quality) -> str:
    low, high = entry.interval
    to_cell = "{:.2f}".format if entry.metric == _RATIO else _to_percent
    real = "" if entry.real_value is None else f" / {to_cell(entry.real_value)}"
    return f"{to_cell(entry.value)} [{to_cell(low)}, {to_cell(high)}]{real}"


def _to_percent(share: float) -> str:
    """Format a share in per cent with one decimal, or two where one would round to 0 or 100."""
    if share in (0, 1):
        return f"{100 * share:.0f}"
    return f"{100 * share:.1f}" if 0.0005 <= share <= 0.9994 else f"{100 * share:.2f}"
