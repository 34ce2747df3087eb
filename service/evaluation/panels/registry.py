"""The panels in order: which parts they take, what they need, which metrics they have.

Two panels may share parts; those are computed once, and named once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from service.evaluation.panels import diversity, label_fidelity, memorisation, realism
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart
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

FEWEST_SAMPLES: Mapping[Panel, int] = MappingProxyType(
    {Panel.REALISM: 100, Panel.DIVERSITY: 100, Panel.MEMORISATION: 50, Panel.LABEL_FIDELITY: 50}
)
"""Samples a panel needs."""
_PARTS: Mapping[Panel, tuple[MetricPart, ...]] = MappingProxyType(
    {
        Panel.REALISM: realism.PARTS,
        Panel.DIVERSITY: diversity.PARTS,
        Panel.MEMORISATION: memorisation.PARTS,
        Panel.LABEL_FIDELITY: label_fidelity.PARTS,
    }
)
_METRICS: Mapping[Panel, Callable[[Mapping[str, JSON], EvidenceSummary], list[Metric]]] = MappingProxyType(
    {
        Panel.REALISM: realism.metrics,
        Panel.DIVERSITY: diversity.metrics,
        Panel.MEMORISATION: memorisation.metrics,
        Panel.LABEL_FIDELITY: label_fidelity.metrics,
    }
)
_NAMES: Mapping[Panel, tuple[str, ...]] = MappingProxyType(
    {
        Panel.REALISM: (
            "precision", "density", "realism_median", "fid", "kid", "sliced_wasserstein", "inception_score",
        ),
        Panel.DIVERSITY: (
            "recall_per_precision", "effective_size_ratio", "effective_size", "worst_class_effective_size_ratio",
            "vendi_ratio", "class_distance", "worst_class_recall_per_precision", "worst_class_recall",
            "worst_class_coverage", "worst_class_vendi_ratio", "recall", "coverage",
        ),
        Panel.MEMORISATION: (
            "copy_rate", "copy_rate_features", "exact_copies", "copy_rate_strict", "near_copies", "nearest_auc",
            "nearest_auc_features",
        ),
        Panel.LABEL_FIDELITY: ("label_agreement", "worst_class_agreement", "label_response", "label_effect"),
    }
)  # fmt: skip
METRICS: Mapping[str, Panel] = MappingProxyType({name: panel for panel, names in _NAMES.items() for name in names})
"""Every metric's name, in the order of the report, and the question it belongs to."""
PER_CLASS_METRICS = frozenset(
    {"recall_per_precision", "effective_size_ratio", "vendi_ratio", "recall", "coverage", "label_agreement"}
)
"""Metrics that are taken within each class too."""


def parts_of(panels: Sequence[Panel], conditional: bool) -> tuple[MetricPart, ...]:
    """The parts that these panels take, in order, each once.

    Args:
        panels: the questions, in the order of the report.
        conditional: samples are asked for by label.

    Raises:
        ValueError: label fidelity is asked of a model without labels.
    """
    if Panel.LABEL_FIDELITY in panels and not conditional:
        raise ValueError("label fidelity is asked of a model that takes no labels")
    parts = {part.name: part for panel in reversed(panels) for part in reversed(_PARTS[panel])}
    return tuple(reversed(parts.values()))


def evaluate_panel(
    panel: Panel, outputs: Mapping[str, JSON], facts: EvidenceSummary
) -> tuple[list[Metric], PanelResult]:
    """The metrics of a panel and its answer.

    Args:
        panel: the question.
        outputs: what parts left, by their name: all of the panel's, shared ones included; others are not looked at.
        facts: counts and names.
    """
    metrics = _METRICS[panel](outputs, facts)
    return metrics, decide_panel(panel, metrics)


def needs_neighbours(panels: Sequence[Panel]) -> bool:
    """Whether the nearest training rows must be known."""
    return Panel.MEMORISATION in panels


def needs_label_grid(panels: Sequence[Panel]) -> bool:
    """Whether the same noise must be drawn under every label."""
    return Panel.LABEL_FIDELITY in panels
