"""Tables of quality: for a terminal, what was measured of one model; for the README, what the cards of a store say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from handlers.cards.card import Card, Quality
from handlers.recipes.catalogue import RECIPES

__all__ = ["is_reached", "to_markdown", "to_text", "wanted_text"]


_RATIO = "within-class-distance-ratio"

_COLUMNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "read as their label": {"label-accuracy": "", "clear-digit-share": "clear: ", "test-accuracy": "real: "},
        "trained on": {"classification-accuracy-score": ""},
        "diversity": {_RATIO: "", "rarest-class-share": "rarest class: "},
    }
)
"""Columns of the README's table: the metrics of each, and what stands before those that are not what it says.

Copies have none: a shipped model has 0 of them, which a test proves and a sentence says."""


def to_text(card: Card, quality: Sequence[Quality], *, verbose: bool) -> str:
    """Write a model's measurements for a terminal, one line a metric.

    Args:
        card: the model's.
        quality: what was measured.
        verbose: add how, below each.
    """
    recipe = card.recipe.name if card.recipe else ""
    rows = [("metric", "value", "95 % interval", "real data", "wanted"), *(_cells(recipe, entry) for entry in quality)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    told = [f"\n      {entry.method}" if verbose else "" for entry in quality]
    return "\n".join([card.name, *(line.rstrip() + more for line, more in zip(lines, ["", *told], strict=True))])


def _cells(recipe: str, entry: Quality) -> tuple[str, str, str, str, str]:
    wanted = wanted_text(recipe, entry.metric)
    missed = "" if is_reached(recipe, entry.metric, entry.value) else " (missed)"
    real = "" if entry.real_value is None else f"{entry.real_value:.4f}"
    return entry.metric, f"{entry.value:.4f}", "[{:.4f}, {:.4f}]".format(*entry.interval), real, wanted + missed


def to_markdown(cards: Sequence[Card]) -> str:
    """Write the README's table from cards, in the catalogue's order; models of one's own come last, by name.

    Transformers are left out: nothing of them was learned, so there is nothing to measure.
    """
    order = list(RECIPES)
    learned = [card for card in cards if "TRANSFORM" not in card.operations]
    ranked = sorted(learned, key=lambda card: (order.index(card.name) if card.name in order else len(order), card.name))
    head = ["model", *_COLUMNS]
    return "\n".join(_to_row(cells) for cells in [head, ["---"] * len(head), *map(_markdown_cells, ranked)])


def _to_row(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _markdown_cells(card: Card) -> Iterator[str]:
    """Name a model, then tell each column's metrics."""
    yield f"`{card.name}`"
    for metrics in _COLUMNS.values():
        yield ", ".join(metrics[entry.metric] + _describe(entry) for entry in card.quality if entry.metric in metrics)


def _describe(entry: Quality) -> str:
    """Give a value, its interval, and the same of real data."""
    low, high = entry.interval
    write = _to_ratio if entry.metric == _RATIO else _percent
    real = "" if entry.real_value is None else f" / {write(entry.real_value)}"
    return f"{write(entry.value)} [{write(low)}, {write(high)}]{real}"


def _to_ratio(value: float) -> str:
    return f"{value:.2f}"


def _percent(share: float) -> str:
    """Write a share in per cent, to a tenth, and to a hundredth where a tenth would say all or nothing of some."""
    if share in (0, 1):
        return f"{100 * share:.0f}"
    return f"{100 * share:.1f}" if 0.0005 <= share <= 0.9994 else f"{100 * share:.2f}"


# FOLDED FROM handlers.recipes.quality.table:
# What a shipped model must reach: floors by recipe, and samples that are nobody's copies.


_NEVER = ("duplicate-share", "training-copy-share")
"""Shares that must be 0 for every generator with a recipe."""


def wanted_text(recipe: str, metric: str) -> str:
    """Say what a recipe's model must reach, as "≥ 0.95" or "0"; "" where nothing is wanted."""
    if recipe not in RECIPES:
        return ""
    if metric in _NEVER:
        return "0"
    least = RECIPES[recipe].wanted.get(metric)
    return "" if least is None else f"≥ {least:g}"


def is_reached(recipe: str, metric: str, value: float) -> bool:
    """Whether a value is good enough; where nothing is wanted, all are."""
    if recipe not in RECIPES:
        return True
    return value == 0 if metric in _NEVER else value >= RECIPES[recipe].wanted.get(metric, float("-inf"))
