"""The page: a report as one HTML file that opens offline, without scripts or anything from outside.

Everything that came from others, class names before all, passes through the template's escaping; no markup is made in
Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from service.evaluation.record import Record
from service.evaluation.report import formatting
from service.evaluation.report.bundle import GRANT, job_facts, report_facts
from service.evaluation.report.views import (
    PLOT_HEIGHT,
    PLOT_WIDTH,
    confusion_view,
    distance_views,
    histogram_view,
    map_view,
    metric_views,
    noise_view,
    sheet_width,
    tile_width,
)

__all__ = ["render"]

_TEMPLATE = "page.html.j2"


def render(bundle: bytes, *, redacted: bool, record: Record) -> bytes:
    """Make the page of a bundle: UTF-8; times and the id are in its last section alone.

    Raises:
        ValueError: as `read_bundle`.
    """
    report = report_facts(bundle, redacted=redacted)
    classes: Sequence[str] = report["envelope"]["classes"]
    content = {
        "report": report,
        "envelope": report["envelope"],
        "classes": classes,
        "panels": [_panel_view(panel, report) for panel in report["panels"]],
        "charts": _chart_views(report["figures"], classes),
        "figures": report["figures"],
        "job": job_facts(record),
        "grant": GRANT,
    }
    return _environment().get_template(_TEMPLATE).render(content).encode("utf-8", "replace")


def _panel_view(panel: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    metrics = metric_views(report["metrics"], panel["panel"])
    return {
        **panel,
        "title": formatting.PANEL_TITLES[panel["panel"]],
        "question": formatting.PANEL_QUESTIONS[panel["panel"]],
        "metrics": metrics,
        "deciding": [metric for metric in metrics if metric["decides"]],
        "beside": [metric for metric in metrics if not metric["decides"]],
    }


def _chart_views(figures: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    if figure := figures.get("class-histogram"):
        drawn["histogram"] = histogram_view(figure, classes)
    if figure := figures.get("confusion"):
        drawn["confusion"] = confusion_view(figure, classes)
    if figure := figures.get("distances"):
        drawn["distances"] = distance_views(figure)
    if figure := figures.get("feature-map"):
        drawn["map"] = map_view(figure, classes)
    if figure := figures.get("same-noise"):
        drawn["noise"] = noise_view(figure, classes)
    return drawn


@cache
def _environment() -> jinja2.Environment:
    folder = resources.files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        verdict_words=formatting.VERDICT_WORDS,
        verdict_signs=formatting.VERDICT_SIGNS,
        tile_width=tile_width,
        sheet_width=sheet_width,
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
    )
    environment.filters.update(
        number=formatting.number, exact=formatting.exact, whole=formatting.whole, percent=formatting.percent
    )
    return environment
