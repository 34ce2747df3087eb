"""The panels in the order of the report: their parts, their metrics, and what they need.

Two panels may share parts; those are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class _PanelSpec:
    """What a panel is made of.

    Attributes:
        parts: their outputs are the input of `build_metrics`.
        build_metrics: makes metrics of the outputs by name of the part, and the summary of the evidence.
        metrics: names of the metrics, in the order of the report.
        fewest_samples: how many samples the panel needs.
    """

    parts: tuple[MetricPart, ...]
    build_metrics: Callable[[Mapping[str, JSON], EvidenceSummary], list[Metric]]
    metrics: tuple[str, ...]
    fewest_samples: int


_PANELS: Mapping[Panel, _PanelSpec] = MappingProxyType(
    {
        Panel.REALISM: _PanelSpec(
            parts=realism.PARTS,
            build_metrics=realism.metrics,
            metrics=("precision", "density", "realism_median", "fid", "kid", "sliced_wasserstein", "inception_score"),
            fewest_samples=100,
        ),
        Panel.DIVERSITY: _PanelSpec(
            parts=diversity.PARTS,
            build_metrics=diversity.metrics,
            metrics=(
                "recall_per_precision",
                "effective_size_ratio",
                "effective_size",
                "worst_class_effective_size_ratio",
                "vendi_ratio",
                "class_distance",
                "worst_class_recall_per_precision",
                "worst_class_recall",
                "worst_class_coverage",
                "worst_class_vendi_ratio",
                "recall",
                "coverage",
            ),
            fewest_samples=100,
        ),
        Panel.MEMORISATION: _PanelSpec(
            parts=memorisation.PARTS,
            build_metrics=memorisation.metrics,
            metrics=(
                "copy_rate",
                "copy_rate_features",
                "exact_copies",
                "copy_rate_strict",
                "near_copies",
                "nearest_auc",
                "nearest_auc_features",
            ),
            fewest_samples=50,
        ),
        Panel.LABEL_FIDELITY: _PanelSpec(
            parts=label_fidelity.PARTS,
            build_metrics=label_fidelity.metrics,
            metrics=("label_agreement", "worst_class_agreement", "label_response", "label_effect"),
            fewest_samples=50,
        ),
    }
)

FEWEST_SAMPLES: Mapping[Panel, int] = MappingProxyType({panel: spec.fewest_samples for panel, spec in _PANELS.items()})
"""How many samples a panel needs."""

METRICS: Mapping[str, Panel] = MappingProxyType(
    {name: panel for panel, spec in _PANELS.items() for name in spec.metrics}
)
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
        for part in _PANELS[panel].parts:
            parts.setdefault(part.name, part)
    return tuple(parts.values())


def evaluate_panel(
    panel: Panel, outputs: Mapping[str, JSON], summary: EvidenceSummary
) -> tuple[list[Metric], PanelResult]:
    """Make the metrics of a panel and its verdict.

    Args:
        panel: which.
        outputs: of parts, by name: all of the panel's, shared ones included; others are ignored.
        summary: of the evidence.
    """
    metrics = _PANELS[panel].build_metrics(outputs, summary)
    return metrics, decide_panel(panel, metrics)


def needs_neighbours(panels: Sequence[Panel]) -> bool:
    """Return whether the nearest training rows must be found."""
    return Panel.MEMORISATION in panels


def needs_label_grid(panels: Sequence[Panel]) -> bool:
    """Return whether the same noise must be drawn under every label."""
    return Panel.LABEL_FIDELITY in panels
