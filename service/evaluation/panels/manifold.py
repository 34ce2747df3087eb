"""The parts that compare manifolds of samples and held-out rows, whose outputs realism and diversity both read."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import estimate_or_note, missing
from service.evaluation.panels.part import JSON, MetricPart, cached_per_evidence, parts_with_draws
from service.evaluation.panels.reference_sample import held_out, samples_or_reference
from service.evaluation.results import Panel
from service.evaluation.statistics.intervals import Estimate
from service.evaluation.statistics.precision_recall import Comparison, K, Manifold, compare

__all__ = ["MANIFOLD", "manifold_parts", "measure_manifold"]

MANIFOLD = "manifold"
"""Name of the parts."""

_METRICS = ("precision", "density", "recall", "coverage")


def manifold_parts(panel: Panel) -> tuple[MetricPart, ...]:
    """Return the parts, as those of a panel."""
    return parts_with_draws(MANIFOLD, panel, "nearest neighbours", measure_manifold)


def measure_manifold(draw: int | None, evidence: Evidence, class_id: int | None = None) -> JSON:
    """Compute precision, density, recall, coverage and the median of realism, over all rows or within one class.

    Args:
        draw: number of the reference sample; None: the samples.
        evidence: of both.
        class_id: None: all classes.
    """
    images, real = samples_or_reference(evidence, draw, class_id), held_out(evidence, class_id)
    if images is None:
        return None
    if min(len(images), len(real)) <= K:
        return _missing(f"needs more than {K} samples and real rows, there are {len(images)} and {len(real)}")
    try:
        real_manifold = cached_per_evidence(evidence, f"manifold {class_id}", lambda: Manifold.of(real.features))
        comparison = compare(Manifold.of(images.features), real_manifold)
    except ValueError as error:  # rows so similar that no ball has an extent
        return _missing(str(error))
    metrics = {name: estimate_or_note(partial(getattr, comparison, name)) for name in _METRICS}
    return metrics | {"realism": estimate_or_note(lambda: _median_realism(comparison))}


def _missing(note: str) -> JSON:
    return {name: missing(note) for name in (*_METRICS, "realism")}


def _median_realism(comparison: Comparison) -> Estimate:
    """Estimate the median, with the interval of order statistics: ranks n/2 ± 1.96 √n/2 contain it."""
    ordered = np.sort(comparison.realism)
    n = len(ordered)
    half = 1.96 * math.sqrt(n) / 2
    ends = ordered[max(0, math.floor(n / 2 - half))], ordered[min(n - 1, math.ceil(n / 2 + half))]
    return Estimate(float(np.median(ordered)), (float(ends[0]), float(ends[1])))
