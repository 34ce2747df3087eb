"""Who lies among whose neighbours: one computation that realism and diversity both read."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import attempt, on_samples_and_draws
from service.evaluation.panels.part import JSON, MetricPart, cached_per_evidence
from service.evaluation.panels.reference_sample import ImageSet, held_out
from service.evaluation.results import Panel
from service.evaluation.statistics.intervals import Estimate
from service.evaluation.statistics.precision_recall import Comparison, K, Manifold, compare

__all__ = ["MANIFOLD", "manifold_parts", "measure_manifold"]

MANIFOLD = "manifold"
_NUMBERS = ("precision", "density", "recall", "coverage", "realism")


def manifold_parts(panel: Panel) -> tuple[MetricPart, ...]:
    """The parts, on behalf of a panel."""
    return on_samples_and_draws(MANIFOLD, panel, "nearest neighbours", _measure)


def measure_manifold(standing: ImageSet, real: ImageSet, evidence: Evidence, name: str) -> JSON:
    """Precision, density, recall, coverage and the median of realism, of rows against real ones.

    Args:
        standing: the rows.
        real: what they are compared with.
        evidence: both are of it.
        name: of the real ones, so that their neighbourhoods are taken once.
    """
    if min(len(standing), len(real)) <= K:
        return _missing(f"needs more than {K} samples and real rows, there are {len(standing)} and {len(real)}")
    try:
        neighbourhoods = cached_per_evidence(evidence, f"manifold {name}", lambda: Manifold.of(real.features))
        comparison = compare(Manifold.of(standing.features), neighbourhoods)
    except ValueError as error:  # rows so alike that no neighbourhood has an extent
        return _missing(str(error))
    estimates: dict[str, Callable[[], Estimate]] = {
        "precision": lambda: comparison.precision,
        "density": lambda: comparison.density,
        "recall": lambda: comparison.recall,
        "coverage": lambda: comparison.coverage,
        "realism": lambda: _median(comparison),
    }
    return {each: attempt(estimate) for each, estimate in estimates.items()}


def _missing(why: str) -> JSON:
    return {each: {"value": None, "interval": None, "note": why} for each in _NUMBERS}


def _measure(standing: ImageSet, evidence: Evidence) -> JSON:
    return measure_manifold(standing, held_out(evidence), evidence, "of all")


def _median(comparison: Comparison) -> Estimate:
    """The median with the interval of order statistics: ranks n/2 ± 1.96 sqrt(n)/2 hold it."""
    ordered = np.sort(comparison.realism)
    n = len(ordered)
    reach = 1.96 * math.sqrt(n) / 2
    ends = ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]
    return Estimate(float(np.median(ordered)), (float(ends[0]), float(ends[1])))
