"""Metrics as the page shows them: rounded, in order, with the geometry of their interval plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.evaluation.report.words import BETTER, NO_NUMBER, exact, metric_title, number, sentence

__all__ = ["MOST_CLASS_ROWS", "PLOT_HEIGHT", "PLOT_WIDTH", "interval_plot", "metric_views"]

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
