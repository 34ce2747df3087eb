"""What a shipped model must reach: floors by recipe, and samples that are nobody's copies."""

from __future__ import annotations

from handlers.recipes.catalogue import RECIPES

__all__ = ["is_reached", "wanted_text"]

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
