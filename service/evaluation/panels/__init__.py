"""The panels: evidence becomes metrics, in parts that take a few seconds each.

A part is a function of the evidence and leaves JSON, so that it can be a step of a job; `evaluate_panel` turns what the
parts of a panel left into metrics and a verdict.
"""

from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart
from service.evaluation.panels.registry import (
    FEWEST_SAMPLES,
    METRICS,
    evaluate_panel,
    needs_label_grid,
    needs_neighbours,
    parts_of,
)

__all__ = [
    "FEWEST_SAMPLES",
    "JSON",
    "METRICS",
    "EvidenceSummary",
    "MetricPart",
    "evaluate_panel",
    "needs_label_grid",
    "needs_neighbours",
    "parts_of",
]
