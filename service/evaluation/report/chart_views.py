"""Figures made of numbers as the page draws them: rows, cells, steps and dots, in numbers the template writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.evaluation.report.words import number, percent, whole

__all__ = ["confusion_view", "distance_views", "histogram_view", "map_view"]

MOST_BARS = 40
"""Classes in a histogram; of more those with the largest difference are shown."""

MOST_MAPS = 12
"""Classes with a map of their own."""

STEPS_WIDTH, STEPS_HEIGHT = 340, 130
MAP_WIDTH, MAP_MOST_HEIGHT = 480, 480
_WRITTEN_CELLS = 15  # classes up to which a matrix has numbers in its cells
_DARK_CELL = 0.55  # the share from which a cell needs light ink
_MARGIN = 6

Json = Mapping[str, Any]
_SPACES = {"pixels": "In pixels", "features": "In features"}


def histogram_view(figure: Json, classes: Sequence[str]) -> dict[str, Any]:
    """Shares of each class, as bars relative to the longest one."""
    totals = {side: max(1, sum(figure[side])) for side in ("generated", "real")}
    shares = {side: [count / totals[side] for count in figure[side]] for side in totals}
    longest = max([*shares["generated"], *shares["real"]], default=0.0) or 1.0
    chosen = list(range(len(classes)))
    if len(classes) > MOST_BARS:
        chosen.sort(key=lambda i: -abs(shares["generated"][i] - shares["real"][i]))
    rows = [
        {"name": classes[i]} | {side: _bar(figure[side][i], shares[side][i], longest) for side in ("generated", "real")}
        for i in chosen[:MOST_BARS]
    ]
    return {"rows": rows, "in_all": len(classes), "generated": sum(figure["generated"]), "real": sum(figure["real"])}


def _bar(count: int, share: float, longest: float) -> dict[str, Any]:
    return {"percent": round(100 * share / longest, 2), "share": percent(share), "count": whole(count)}


def confusion_view(figure: Json, classes: Sequence[str]) -> dict[str, Any]:
    """A heat map's cells as shares of their row, where there is one; and the commonest confusions."""
    counts = figure["counts"]
    rows = []
    for name, row in zip(classes, counts or [], strict=False):
        total = max(1, sum(row))
        rows.append({"name": name, "cells": [_cell(count, count / total) for count in row], "total": whole(sum(row))})
    confusions = [
        {"asked": classes[i], "read": classes[j], "count": whole(n), "share": percent(n / max(1, figure["asked"][i]))}
        for i, j, n in figure["confusions"]
    ]
    return {"rows": rows, "written": len(classes) <= _WRITTEN_CELLS, "confusions": confusions, "in_all": len(classes)}


def _cell(count: int, share: float) -> dict[str, Any]:
    shown = "" if not count else "<1" if share < 0.005 else f"{100 * share:.0f}"
    return {"count": whole(count), "heat": round(share, 3), "shown": shown, "dark": share >= _DARK_CELL}


def distance_views(figure: Json) -> list[dict[str, Any]]:
    """A pair of step lines for each space, as SVG paths on STEPS_WIDTH by STEPS_HEIGHT."""
    return [
        {"title": _SPACES.get(space, space)} | _steps(bins)
        for space, bins in sorted(figure["spaces"].items(), reverse=True)
        if bins is not None
    ]


def _steps(bins: Json) -> dict[str, Any]:
    edges, sides = bins["edges"], ("generated", "real")
    shares = {side: [count / max(1, sum(bins[side])) for count in bins[side]] for side in sides}
    tallest = max(max(each) for each in shares.values()) or 1.0
    paths = {side: _outline(shares[side], tallest) for side in sides}
    middles = {f"{side}_median": bins[f"{side}_median"] for side in sides}
    span = edges[-1] - edges[0]
    return {
        **paths,
        **{name: number(value) for name, value in middles.items()},
        **{
            f"{name}_x": round(STEPS_WIDTH * min(1.0, max(0.0, (value - edges[0]) / span)), 1)
            for name, value in middles.items()
        },
        "low": number(edges[0]),
        "high": number(edges[-1]),
        "beyond": {side: bins[f"{side}_beyond"] for side in sides},
        "width": STEPS_WIDTH,
        "height": STEPS_HEIGHT,
    }


def _outline(shares: Sequence[float], tallest: float) -> str:
    """Steps from left to right, closed at the ground."""
    width = STEPS_WIDTH / len(shares)
    parts = [f"M0 {STEPS_HEIGHT}"]
    for position, share in enumerate(shares):
        parts.append(f"V{STEPS_HEIGHT * (1 - 0.95 * share / tallest):.1f}H{(position + 1) * width:.1f}")
    return "".join(parts) + f"V{STEPS_HEIGHT}Z"


def map_view(figure: Json, classes: Sequence[str]) -> dict[str, Any] | None:
    """Dots of both sides, all together and a map a class; None: there are no points."""
    sides = ("real", "generated")
    points = {side: figure[side]["points"] for side in sides}
    every = [point for side in sides for point in points[side]]
    if not every:
        return None
    place, height = _placing(every)
    dots = {side: [place(point) for point in points[side]] for side in sides}
    single = []
    for class_id in range(len(classes) if 1 < len(classes) <= MOST_MAPS else 0):
        own = {
            side: "".join(
                dot for dot, label in zip(dots[side], figure[side]["classes"], strict=True) if label == class_id
            )
            for side in sides
        }
        single.append({"name": classes[class_id], **own})
    return {
        **{side: "".join(dots[side]) for side in sides},
        **{f"{side}_points": whole(len(points[side])) for side in sides},
        "width": MAP_WIDTH,
        "height": height,
        "explained": [percent(share) for share in figure["explained"]],
        "classes": single,
    }


def _placing(points: Sequence[Sequence[float]]) -> tuple[Any, int]:
    """A function from a point to a dot's SVG path, with one scale for both axes; and the picture's height."""
    lows = [min(point[axis] for point in points) for axis in (0, 1)]
    spans = [max(point[axis] for point in points) - lows[axis] for axis in (0, 1)]
    room = MAP_WIDTH - 2 * _MARGIN
    scale = min(room / (spans[0] or 1e-300), (MAP_MOST_HEIGHT - 2 * _MARGIN) / (spans[1] or 1e-300))
    if not any(spans):
        scale = 0.0
    left = (MAP_WIDTH - scale * spans[0]) / 2
    height = max(MAP_WIDTH // 3, round(scale * spans[1]) + 2 * _MARGIN)
    top = (height - scale * spans[1]) / 2

    def place(point: Sequence[float]) -> str:
        x = left + scale * (point[0] - lows[0])
        y = height - top - scale * (point[1] - lows[1])
        return f"M{x:.1f} {y:.1f}h0"

    return place, height
