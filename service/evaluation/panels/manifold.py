"""The parts that compare manifolds of samples and held-out rows, whose outputs realism and diversity both read."""

from __future__ import annotations

from functools import partial

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import estimate_or_note, missing, ratio_of_estimates
from service.evaluation.panels.parts import JSON, MetricPart, held_out, parts_with_draws, samples_or_reference
from service.evaluation.results import Panel
from service.evaluation.statistics.precision_recall import K, Manifold, compare

__all__ = ["MANIFOLD", "manifold_parts", "measure_manifold"]

MANIFOLD = "manifold"
"""Name of the parts."""

_METRICS = ("precision", "density", "recall", "coverage", "realism_median")


def manifold_parts(panel: Panel) -> tuple[MetricPart, ...]:
    """Return the parts, as those of a panel."""
    return parts_with_draws(MANIFOLD, panel, "nearest neighbours", measure_manifold)


def measure_manifold(draw: int | None, evidence: Evidence, class_id: int | None = None) -> JSON:
    """Compute the metrics of `Comparison`, and recall over precision, over all rows or within one class.

    Args:
        draw: number of the reference sample; None: the samples.
        evidence: of both.
        class_id: None: all classes.
    """
    images, real = samples_or_reference(evidence, draw, class_id), held_out(evidence, class_id)
    if images is None:
        return None
    try:
        if min(len(images), len(real)) <= K:
            raise ValueError(f"needs more than {K} samples and real rows, there are {len(images)} and {len(real)}")
        real_manifold = evidence.cached(f"manifold {class_id}", lambda: Manifold.of(real.features))
        comparison = compare(Manifold.of(images.features), real_manifold)
    except ValueError as error:  # too few rows, or rows so similar that no ball has an extent
        return dict.fromkeys((*_METRICS, "recall_per_precision"), missing(str(error)))
    outputs = {name: estimate_or_note(partial(getattr, comparison, name)) for name in _METRICS}
    return outputs | {"recall_per_precision": ratio_of_estimates(outputs["recall"], outputs["precision"])}
