"""The panels in the order of the report: their parts, their metrics, and what they need.

Each panel is a module with the names of its `METRICS`, its `PARTS`, and `build_metrics`, which makes the metrics of the
outputs of the parts. Two panels may share parts; those are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from service.evaluation.evidence import Evidence
from service.evaluation.panels import diversity, label_fidelity, memorisation, realism
from service.evaluation.panels.held_out import describe_real_rows, without_unmeasurable
from service.evaluation.panels.parts import JSON, MetricPart
from service.evaluation.results import Metric, Panel, PanelResult
from service.evaluation.verdicts import decide_panel

__all__ = [
    "FEWEST_SAMPLES",
    "METRICS",
    "PER_CLASS_METRICS",
    "evaluate_panel",
    "needs_label_grid",
    "needs_neighbours",
    "parts_of",
]


_PANELS: Mapping[Panel, ModuleType] = {
    Panel.REALISM: realism,
    Panel.DIVERSITY: diversity,
    Panel.MEMORISATION: memorisation,
    Panel.LABEL_FIDELITY: label_fidelity,
}
FEWEST_SAMPLES: Mapping[Panel, int] = {panel: each.FEWEST_SAMPLES for panel, each in _PANELS.items()}
"""How many samples a panel needs."""
METRICS: Mapping[str, Panel] = {name: panel for panel in _PANELS for name in _PANELS[panel].METRICS}
"""Every metric's name, in the order of the report, and the panel it belongs to."""
PER_CLASS_METRICS = frozenset(
    {"recall_per_precision", "effective_size_ratio", "vendi_ratio", "recall", "coverage", "label_agreement"}
)
"""Metrics that are computed within each class, too."""


def parts_of(panels: Sequence[Panel], conditional: bool) -> tuple[MetricPart, ...]:
    """Return the parts that these panels need, in order, each once.

    Args:
        panels: in the order of the report.
        conditional: labels are requested for the samples.

    Raises:
        ValueError: label fidelity of a model that takes no labels.
    """
    if Panel.LABEL_FIDELITY in panels and not conditional:
        raise ValueError("label fidelity cannot be evaluated of a model that takes no labels")
    parts: dict[str, MetricPart] = {}
    for panel in panels:
        for part in _PANELS[panel].PARTS:
            parts.setdefault(part.name, part)
    return tuple(parts.values())


def evaluate_panel(panel: Panel, outputs: Mapping[str, JSON], evidence: Evidence) -> tuple[list[Metric], PanelResult]:
    """Make the metrics of a panel and its verdict.

    Args:
        panel: which.
        outputs: of parts, by name: all of the panel's, shared ones included; others are ignored.
        evidence: of the evaluation.
    """
    metrics = without_unmeasurable(_PANELS[panel].build_metrics(outputs, evidence), evidence)
    return metrics, replace(decide_panel(panel, metrics), note=describe_real_rows(evidence))


def needs_neighbours(panels: Sequence[Panel]) -> bool:
    """Return whether the nearest training rows must be found."""
    return Panel.MEMORISATION in panels


def needs_label_grid(panels: Sequence[Panel]) -> bool:
    """Return whether the same noise must be drawn under every label."""
    return Panel.LABEL_FIDELITY in panels
