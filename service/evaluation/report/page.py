"""The page: a report as one HTML file that opens offline, without scripts or anything loaded from elsewhere.

All text, class names above all, is escaped by the template engine; no markup is made in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from service.evaluation.record import Record
from service.evaluation.report import formatting, views
from service.evaluation.report.bundle import GRANT, job_facts, report_facts

__all__ = ["render"]

_TEMPLATE = "page.html.j2"
_CHARTS: Mapping[str, Callable[[Mapping[str, Any], Sequence[str]], Any]] = {
    "class-histogram": views.histogram_view,
    "confusion": views.confusion_view,
    "distances": lambda figure, _: views.distance_views(figure),
    "feature-map": views.map_view,
    "same-noise": views.noise_view,
}


def render(bundle: bytes, *, redacted: bool, record: Record) -> bytes:
    """Render the page of a bundle: UTF-8; times and the id are in its last section alone.

    Raises:
        ValueError: as `read_bundle`.
    """
    report = report_facts(bundle, redacted=redacted)
    classes, figures = report["envelope"]["classes"], report["figures"]
    content = {
        "report": report,
        "envelope": report["envelope"],
        "classes": classes,
        "panels": [_panel_view(panel, report) for panel in report["panels"]],
        "charts": {name: view(figures[name], classes) for name, view in _CHARTS.items() if name in figures},
        "figures": figures,
        "notes": list(dict.fromkeys(panel["note"] for panel in report["panels"] if panel["note"])),
        "job": job_facts(record),
        "grant": GRANT,
    }
    return _environment().get_template(_TEMPLATE).render(content).encode("utf-8", "replace")


def _panel_view(panel: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    metrics = views.metric_views(report["metrics"], panel["panel"])
    return {
        **panel,
        "title": formatting.title(panel["panel"]),
        "question": formatting.PANEL_QUESTIONS[panel["panel"]],
        "deciding": [metric for metric in metrics if metric["decides"]],
        "other": [metric for metric in metrics if not metric["decides"]],
    }


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
        tile_width=views.tile_width,
        sheet_width=views.sheet_width,
        plot_width=views.PLOT_WIDTH,
        plot_height=views.PLOT_HEIGHT,
    )
    environment.filters.update({name: getattr(formatting, name) for name in ("number", "exact", "whole", "percent")})
    return environment
