"""Metrics as the page shows them: rounded, in order, with the geometry of their interval plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.evaluation.report.formatting import (
    BETTER,
    NO_NUMBER,
    exact,
    metric_title,
    number,
    percent,
    sentence,
    whole,
)

__all__ = [
    "MOST_CLASS_ROWS",
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


MOST_CLASS_ROWS = 100
"""Classes in a folded table; of more the worst are shown, and the page says so."""

PLOT_WIDTH, PLOT_HEIGHT = 200, 30
_MARGIN = 8.0  # of the plot, left and right
_THINNEST = 2.0  # of a band or bar, so that it can be seen
_SEVERITY = ("worse", "near-real", "like-real", "none")

Json = Mapping[str, Any]


def metric_views(metrics: Sequence[Json], panel: str) -> list[dict[str, Any]]:
    """A panel's metrics, those that decide first."""
    own = [metric for metric in metrics if metric["panel"] == panel]
    return [_view(metric) for metric in sorted(own, key=lambda metric: not metric["decides"])]


def interval_plot(metric: Json) -> dict[str, Any] | None:
    """Where value, interval and real range lie on a line PLOT_WIDTH long; None: there is no value to show.

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

    def at(number: float) -> float:
        return round(_MARGIN + (PLOT_WIDTH - 2 * _MARGIN) * (number - low) / (high - low), 1)

    return {
        "point": None if value is None else at(value),
        "bar": _stretch(interval, at),
        "band": _stretch(null["range"], at) if null else None,
        "mean": at(null["mean"]) if null and null["mean"] is not None else None,
    }


def _stretch(ends: Sequence[float | None] | None, at: Any) -> dict[str, float] | None:
    if ends is None:
        return None
    start = 0.0 if ends[0] is None else at(ends[0])
    end = float(PLOT_WIDTH) if ends[1] is None else at(ends[1])
    width = max(_THINNEST, end - start)
    return {"x": round((start + end - width) / 2, 1), "width": round(width, 1)}


def _view(metric: Json) -> dict[str, Any]:
    null = metric["null"]
    return {
        "name": metric["name"],
        "title": metric_title(metric["name"]),
        "verdict": metric["verdict"],
        "decides": metric["decides"],
        "better": BETTER.get(metric["better"], metric["better"]),
        "value": _shown(metric["value"]),
        "interval": _shown_interval(metric["interval"]),
        "null": _null_view(null) if null else None,
        "plot": interval_plot(metric),
        "tolerance": number(metric["tolerance"]) if metric["tolerance"] else "",
        "method": sentence(metric["method"]),
        "note": sentence(metric["note"]),
        "samples": metric["samples"],
        "classes": _class_rows(metric["classes"]),
        "classes_in_all": len(metric["classes"]),
    }


def _null_view(null: Json) -> dict[str, Any]:
    return {
        "mean": _shown(null["mean"]),
        "range": _shown_interval(null["range"]),
        "draws": null["draws"],
        "rows": null["rows"],
    }


def _shown(value: float | None) -> dict[str, str]:
    return {"short": number(value), "exact": exact(value)}


def _shown_interval(interval: Sequence[float | None] | None) -> dict[str, str] | None:
    if interval is None:
        return None
    low, high = interval
    shorts = ("−∞" if low is None else number(low), "∞" if high is None else number(high))
    return {"short": f"{shorts[0]} to {shorts[1]}", "exact": f"{exact(low)} to {exact(high)}"}


def _class_rows(classes: Sequence[Json]) -> list[dict[str, Any]]:
    """All classes in order; of too many the worst, worst first."""
    chosen = list(classes)
    if len(chosen) > MOST_CLASS_ROWS:
        chosen = sorted(chosen, key=_by_severity)[:MOST_CLASS_ROWS]
    return [
        {
            "name": each["class_name"],
            "value": _shown(each["value"]),
            "interval": _shown_interval(each["interval"]) or {"short": NO_NUMBER, "exact": "there is none"},
            "null": _shown(each["null_mean"]),
            "verdict": each["verdict"],
        }
        for each in chosen
    ]


def _by_severity(each: Json) -> tuple[int, float]:
    value, null = each["value"], each["null_mean"]
    far = abs(value - null) if value is not None and null is not None else 0.0
    return _SEVERITY.index(each["verdict"]), -far


# FOLDED FROM service.evaluation.report.views:
# Figures made of numbers as the page draws them: rows, cells, steps and dots, in numbers the template writes
# down.


MOST_BARS = 40
"""Classes in a histogram; of more those with the largest difference are shown."""

MOST_MAPS = 12
"""Classes with a map of their own."""

STEPS_WIDTH, STEPS_HEIGHT = 340, 130
MAP_WIDTH, MAP_MOST_HEIGHT = 480, 480
_WRITTEN_CELLS = 15  # classes up to which a matrix has numbers in its cells
_DARK_CELL = 0.55  # the share from which a cell needs light ink
_CHART_MARGIN = 6

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
    room = MAP_WIDTH - 2 * _CHART_MARGIN
    scale = min(room / (spans[0] or 1e-300), (MAP_MOST_HEIGHT - 2 * _CHART_MARGIN) / (spans[1] or 1e-300))
    if not any(spans):
        scale = 0.0
    left = (MAP_WIDTH - scale * spans[0]) / 2
    height = max(MAP_WIDTH // 3, round(scale * spans[1]) + 2 * _CHART_MARGIN)
    top = (height - scale * spans[1]) / 2

    def place(point: Sequence[float]) -> str:
        x = left + scale * (point[0] - lows[0])
        y = height - top - scale * (point[1] - lows[1])
        return f"M{x:.1f} {y:.1f}h0"

    return place, height


# FOLDED FROM service.evaluation.report.views:
# Pictures as the page lays them out: how large they are shown, and what is written beside them.


_SMALLEST_SHOWN, _LARGEST_SHOWN = 48, 96  # CSS pixels of a tile's width


def tile_width(size: Sequence[int], smallest: int = _SMALLEST_SHOWN) -> int:
    """How wide a tile of (height, width) is shown, in CSS pixels: the least whole multiple that can be seen."""
    width = int(size[1])
    times = -(-smallest // width)
    return min(width * times, max(width, _LARGEST_SHOWN))


def sheet_width(sheet: Json, smallest: int = _SMALLEST_SHOWN) -> int:
    """How wide a sheet is shown, so that its tiles have their own width."""
    scale: float = tile_width(sheet["size"], smallest) / sheet["size"][1]
    return round(scale * _pixels(sheet, "columns", 1))


def noise_view(figure: Json, classes: Sequence[str]) -> dict[str, Any] | None:
    """The sheet of one noise under every label, with the cells in which the classifier reads another one."""
    sheet = figure["sheet"]
    if sheet is None:
        return None
    columns: Sequence[int] = figure["classes"]
    cells = [
        {"asked": classes[asked], "read": None if read < 0 else classes[read], "wrong": read != asked}
        for row in figure["predicted"]
        for asked, read in zip(columns, row, strict=True)
    ]
    return {
        "sheet": sheet,
        "names": [classes[each] for each in columns],
        "cells": cells,
        "right": sum(not cell["wrong"] for cell in cells),
        "in_all": len(columns) + figure["classes_left_out"],
        "column_gap": round(100 * sheet["gap"] / _pixels(sheet, "columns", 1), 3),
        "row_gap": round(100 * sheet["gap"] / _pixels(sheet, "rows", 0), 3),
    }


def _pixels(sheet: Json, tiles: str, side: int) -> int:
    """A sheet's own pixels along one side."""
    pitch: int = sheet["size"][side] + sheet["gap"]
    return int(sheet[tiles]) * pitch - int(sheet["gap"])
