"""Views of metrics and figures for the page's templates: formatted numbers, and geometry of the plots.

JSON of the bundle enters, dictionaries leave whose values templates write without computation. Figures of images need
the layout of their tiles alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.evaluation.report.formatting import BETTER, NO_NUMBER, exact, number, percent, sentence, title, whole

__all__ = [
    "PLOT_HEIGHT",
    "PLOT_WIDTH",
    "confusion_view",
    "distance_views",
    "histogram_view",
    "interval_plot",
    "map_view",
    "metric_views",
    "noise_view",
    "sheet_width",
    "tile_width",
]

PLOT_WIDTH, PLOT_HEIGHT = 200, 30
STEPS_WIDTH, STEPS_HEIGHT = 340, 130
MAP_WIDTH, MAP_MOST_HEIGHT = 480, 480

MOST_CLASS_ROWS = 100
"""Classes in a metric's table; of more the worst are shown, and the page states it."""
MOST_BARS = 40
"""Classes in a histogram; of more those with the largest difference are shown."""
MOST_MAPS = 12
"""Classes with a map of their own."""

_PLOT_MARGIN = 8.0  # left and right
_MAP_MARGIN = 6
_THINNEST = 2.0  # of a band or bar, so that it is visible
_MOST_NUMBERED_CLASSES = 15  # up to so many a confusion matrix has numbers in its cells
_DARK_CELL = 0.55  # the share from which a cell needs light text
_SMALLEST_TILE, _LARGEST_TILE = 48, 96  # CSS pixels of a tile's width
_SEVERITY = ("worse", "not-measurable", "near-real", "like-real", "none")
_SPACES = {"pixels": "In pixels", "features": "In features"}
_SIDES = ("generated", "real")

Json = Mapping[str, Any]


# --- Metrics ----------------------------------------------------------------------------------------------------------


def metric_views(metrics: Sequence[Json], panel: str) -> list[dict[str, Any]]:
    """Return a panel's metrics."""
    return [_metric_view(metric) for metric in metrics if metric["panel"] == panel]


def interval_plot(metric: Json) -> dict[str, Any] | None:
    """Place value, interval and real range on a line PLOT_WIDTH long; None: there is no value to show.

    Returns:
        point: x of the value. bar, band: x and width of interval and real range; an open end is at the edge. mean: x of
        the real mean. Each is None where there is none.
    """
    value, interval, null = metric["value"], metric["interval"], metric["null"]
    if value is None and interval is None:
        return None
    ends = list(interval or ()) + ([null["mean"], *null["range"]] if null else [])
    known = [float(each) for each in [value, *ends] if each is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = (high - low) or abs(high) or 1.0
    if high == low:
        low, high = low - span / 2, high + span / 2

    def x(number: float) -> float:
        return round(_PLOT_MARGIN + (PLOT_WIDTH - 2 * _PLOT_MARGIN) * (number - low) / (high - low), 1)

    def extent(ends: Sequence[float | None] | None) -> dict[str, float] | None:
        if ends is None:
            return None
        start = 0.0 if ends[0] is None else x(ends[0])
        end = float(PLOT_WIDTH) if ends[1] is None else x(ends[1])
        width = max(_THINNEST, end - start)
        return {"x": round((start + end - width) / 2, 1), "width": round(width, 1)}

    return {
        "point": None if value is None else x(value),
        "bar": extent(interval),
        "band": extent(null["range"]) if null else None,
        "mean": x(null["mean"]) if null and null["mean"] is not None else None,
    }


def _metric_view(metric: Json) -> dict[str, Any]:
    null = metric["null"]
    return {
        **{name: metric[name] for name in ("name", "verdict", "decides", "samples")},
        "title": title(metric["name"]),
        "better": BETTER.get(metric["better"], metric["better"]),
        "value": _format_number(metric["value"]),
        "interval": _format_interval(metric["interval"]),
        "null": null and {**null, "mean": _format_number(null["mean"]), "range": _format_interval(null["range"])},
        "plot": interval_plot(metric),
        "tolerance": number(metric["tolerance"]) if metric["tolerance"] else "",
        "method": sentence(metric["method"]),
        "note": sentence(metric["note"]),
        "classes": _class_rows(metric["classes"]),
        "class_count": len(metric["classes"]),
    }


def _format_number(value: float | None) -> dict[str, str]:
    return {"short": number(value), "exact": exact(value)}


def _format_interval(interval: Sequence[float | None] | None) -> dict[str, str] | None:
    if interval is None:
        return None
    low, high = interval
    shorts = ("−∞" if low is None else number(low), "∞" if high is None else number(high))
    return {"short": f"{shorts[0]} to {shorts[1]}", "exact": f"{exact(low)} to {exact(high)}"}


def _class_rows(classes: Sequence[Json]) -> list[dict[str, Any]]:
    """Return all classes in order; of too many the worst, worst first."""

    def severity(each: Json) -> tuple[int, float]:
        value, null = each["value"], each["null_mean"]
        difference = abs(value - null) if value is not None and null is not None else 0.0
        return _SEVERITY.index(each["verdict"]), -difference

    if len(classes) > MOST_CLASS_ROWS:
        classes = sorted(classes, key=severity)[:MOST_CLASS_ROWS]
    return [
        {
            "name": each["class_name"],
            "value": _format_number(each["value"]),
            "interval": _format_interval(each["interval"]) or {"short": NO_NUMBER, "exact": "there is none"},
            "null": _format_number(each["null_mean"]),
            "verdict": each["verdict"],
        }
        for each in classes
    ]


# --- Figures made of numbers ------------------------------------------------------------------------------------------


def histogram_view(figure: Json, classes: Sequence[str]) -> dict[str, Any]:
    """Return shares of each class, as bars relative to the longest one."""
    totals = {side: sum(figure[side]) for side in _SIDES}
    shares = {side: [count / max(1, totals[side]) for count in figure[side]] for side in _SIDES}
    longest = max([*shares["generated"], *shares["real"]], default=0.0) or 1.0
    chosen = list(range(len(classes)))
    if len(classes) > MOST_BARS:
        chosen.sort(key=lambda i: -abs(shares["generated"][i] - shares["real"][i]))

    def bar(side: str, i: int) -> dict[str, Any]:
        share = shares[side][i]
        return {"percent": round(100 * share / longest, 2), "share": percent(share), "count": whole(figure[side][i])}

    rows = [{"name": classes[i]} | {side: bar(side, i) for side in _SIDES} for i in chosen[:MOST_BARS]]
    return {"rows": rows, "class_count": len(classes), **totals}


def confusion_view(figure: Json, classes: Sequence[str]) -> dict[str, Any]:
    """Return the cells of a confusion matrix as shares of their row, if there is one, and the frequent confusions."""
    rows = []
    for name, row in zip(classes, figure["counts"] or [], strict=False):
        cells = [_cell(count, count / max(1, sum(row))) for count in row]
        rows.append({"name": name, "cells": cells, "total": whole(sum(row))})
    confusions = [
        {
            "requested": classes[i],
            "predicted": classes[j],
            "count": whole(n),
            "share": percent(n / max(1, figure["asked"][i])),
        }
        for i, j, n in figure["confusions"]
    ]
    return {"rows": rows, "numbered": len(classes) <= _MOST_NUMBERED_CLASSES, "confusions": confusions}


def _cell(count: int, share: float) -> dict[str, Any]:
    shown = "" if not count else "<1" if share < 0.005 else f"{100 * share:.0f}"
    return {"count": whole(count), "heat": round(share, 3), "shown": shown, "dark": share >= _DARK_CELL}


def distance_views(figure: Json) -> list[dict[str, Any]]:
    """Return a pair of step lines for each space, as SVG paths on STEPS_WIDTH by STEPS_HEIGHT."""
    return [
        {"title": _SPACES.get(space, space)} | _step_lines(bins)
        for space, bins in sorted(figure["spaces"].items(), reverse=True)
        if bins is not None
    ]


def _step_lines(bins: Json) -> dict[str, Any]:
    edges = bins["edges"]
    shares = {side: [count / max(1, sum(bins[side])) for count in bins[side]] for side in _SIDES}
    tallest = max(max(each) for each in shares.values()) or 1.0
    return {
        **{side: _outline(shares[side], tallest) for side in _SIDES},
        **{f"{side}_median": number(bins[f"{side}_median"]) for side in _SIDES},
        "low": number(edges[0]),
        "high": number(edges[-1]),
        "beyond": {side: bins[f"{side}_beyond"] for side in _SIDES},
        "width": STEPS_WIDTH,
        "height": STEPS_HEIGHT,
    }


def _outline(shares: Sequence[float], tallest: float) -> str:
    """Draw steps from left to right, closed at the baseline."""
    width = STEPS_WIDTH / len(shares)
    parts = [f"M0 {STEPS_HEIGHT}"]
    for position, share in enumerate(shares):
        parts.append(f"V{STEPS_HEIGHT * (1 - 0.95 * share / tallest):.1f}H{(position + 1) * width:.1f}")
    return "".join(parts) + f"V{STEPS_HEIGHT}Z"


def map_view(figure: Json, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the points of samples and held-out rows as SVG paths, all together and for each class; None: no points."""
    points = [point for side in _SIDES for point in figure[side]["points"]]
    if not points:
        return None
    to_path, height = _map_scale(points)
    dots = {
        side: list(zip(map(to_path, figure[side]["points"]), figure[side]["classes"], strict=True)) for side in _SIDES
    }

    def paths(class_id: int | None) -> dict[str, str]:
        return {
            side: "".join(dot for dot, label in dots[side] if class_id is None or label == class_id) for side in _SIDES
        }

    mapped = range(len(classes)) if 1 < len(classes) <= MOST_MAPS else ()
    return {
        **paths(None),
        **{f"{side}_points": whole(len(dots[side])) for side in _SIDES},
        "width": MAP_WIDTH,
        "height": height,
        "explained": [percent(share) for share in figure["explained"]],
        "classes": [{"name": classes[class_id], **paths(class_id)} for class_id in mapped],
    }


def _map_scale(points: Sequence[Sequence[float]]) -> tuple[Callable[[Sequence[float]], str], int]:
    """Return a function from a point to a dot's SVG path, with one scale for both axes, and the map's height."""
    lows = [min(point[axis] for point in points) for axis in (0, 1)]
    spans = [max(point[axis] for point in points) - lows[axis] for axis in (0, 1)]
    scale = min(
        (MAP_WIDTH - 2 * _MAP_MARGIN) / (spans[0] or 1e-300), (MAP_MOST_HEIGHT - 2 * _MAP_MARGIN) / (spans[1] or 1e-300)
    )
    if not any(spans):
        scale = 0.0
    left = (MAP_WIDTH - scale * spans[0]) / 2
    height = max(MAP_WIDTH // 3, round(scale * spans[1]) + 2 * _MAP_MARGIN)
    top = (height - scale * spans[1]) / 2

    def to_path(point: Sequence[float]) -> str:
        x = left + scale * (point[0] - lows[0])
        y = height - top - scale * (point[1] - lows[1])
        return f"M{x:.1f} {y:.1f}h0"

    return to_path, height


# --- Figures made of images -------------------------------------------------------------------------------------------


def tile_width(size: Sequence[int], smallest: int = _SMALLEST_TILE) -> int:
    """Return the width at which a tile of (height, width) is shown, in CSS pixels: a whole multiple that is visible."""
    width = int(size[1])
    times = -(-smallest // width)
    return min(width * times, max(width, _LARGEST_TILE))


def sheet_width(sheet: Json, smallest: int = _SMALLEST_TILE) -> int:
    """Return the width at which a sheet is shown, so that its tiles have their own width."""
    scale: float = tile_width(sheet["size"], smallest) / sheet["size"][1]
    return round(scale * _sheet_pixels(sheet, "columns", 1))


def noise_view(figure: Json, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the sheet of one noise under every label, with the cells whose predicted class differs from the label."""
    sheet = figure["sheet"]
    if sheet is None:
        return None
    columns: Sequence[int] = figure["classes"]
    cells = [
        {
            "requested": classes[label],
            "predicted": None if predicted < 0 else classes[predicted],
            "wrong": predicted != label,
        }
        for row in figure["predicted"]
        for label, predicted in zip(columns, row, strict=True)
    ]
    return {
        "sheet": sheet,
        "names": [classes[each] for each in columns],
        "cells": cells,
        "right": sum(not cell["wrong"] for cell in cells),
        "class_count": len(columns) + figure["classes_left_out"],
        "column_gap": round(100 * sheet["gap"] / _sheet_pixels(sheet, "columns", 1), 3),
        "row_gap": round(100 * sheet["gap"] / _sheet_pixels(sheet, "rows", 0), 3),
    }


def _sheet_pixels(sheet: Json, tiles: str, axis: int) -> int:
    """Return a sheet's size in pixels along one axis."""
    return int(sheet[tiles] * (sheet["size"][axis] + sheet["gap"]) - sheet["gap"])
