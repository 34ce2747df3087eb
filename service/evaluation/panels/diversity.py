"""Diversity: are there as many different samples as real rows, overall and within each class?

Recall and coverage fall when samples miss real rows, and also when they lie elsewhere: unrealistic samples reach
nothing. So they are shown, and what decides is recall over precision (samples that lie elsewhere lose both alike),
the number of different things by the birthday test, the Vendi score, and the shares of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from service.evaluation.evidence import Evidence
from service.evaluation.panels.effective_size import BIRTHDAY_PARTS, FEWEST_IN_CLASS, effective_metrics
from service.evaluation.panels.estimates import (
    attempt,
    build_metric,
    null_from_draws,
    on_samples_and_draws,
    outputs_of_draws,
)
from service.evaluation.panels.manifold import MANIFOLD, manifold_parts, measure_manifold
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart
from service.evaluation.panels.per_class import PerClassMetric, over, relative_to_reference, worst_metrics
from service.evaluation.panels.reference_sample import DRAWS, ImageSet, class_reference_sample, held_out, held_out_class
from service.evaluation.results import Metric, Null, Panel
from service.evaluation.statistics.histogram import compare_histograms
from service.evaluation.statistics.precision_recall import K, expected_coverage
from service.evaluation.statistics.vendi_score import estimate_vendi

__all__ = ["CLASSES", "CLASS_PARTS", "PARTS", "metrics"]

# FOLDED FROM service.evaluation.panels.diversity:
# Recall, coverage and Vendi score within each class, where collapse of one class alone shows.


CLASSES = "classes"
_STAGE = "looking into classes"


def _measure_classes(number: int | None, evidence: Evidence) -> JSON:
    return [_measure_class(number, each, evidence) for each in range(len(evidence.classes))]


def _measure_class(number: int | None, class_id: int, evidence: Evidence) -> JSON:
    standing, real = class_reference_sample(evidence, class_id, number), held_out_class(evidence, class_id)
    if standing is None or min(len(standing), len(real)) < FEWEST_IN_CLASS:
        return None
    measured = measure_manifold(standing, real, evidence, f"of class {class_id}")
    return {
        "rows": len(standing),
        "precision": measured["precision"],
        "recall": measured["recall"],
        "coverage": measured["coverage"],
        "vendi": attempt(lambda: estimate_vendi(standing.features, blocks=standing.blocks)),
    }


CLASS_PARTS: tuple[MetricPart, ...] = (
    MetricPart(name=f"{CLASSES}.samples", panel=Panel.DIVERSITY, stage=_STAGE, compute=partial(_measure_classes, None)),
    *(
        MetricPart(
            name=f"{CLASSES}.real.{number}",
            panel=Panel.DIVERSITY,
            stage=_STAGE,
            compute=partial(_measure_classes, number),
        )
        for number in range(DRAWS)
    ),
)


_SPREAD = "spread"
RECALL_TOLERANCE = 0.1
PER_PRECISION_TOLERANCE = 0.2
"""A fifth of what samples could reach at their precision is not reached."""
VENDI_TOLERANCE = 0.15
CLASS_TOLERANCE = 0.05
"""One sample in twenty in another class than real rows."""
WORST_TOLERANCE = 0.5
"""Half of what real rows score, in the worst class: one class has few rows, and its numbers stray."""
_ELSEWHERE = "Samples that lie elsewhere than real rows lower it too, so it does not decide"


def _measure(standing: ImageSet, evidence: Evidence) -> JSON:
    own, real = (
        np.bincount(np.argmax(each.probabilities, axis=1), minlength=len(evidence.classes))
        for each in (standing, held_out(evidence))
    )
    test = compare_histograms(own, real)
    return {
        "vendi": attempt(lambda: estimate_vendi(standing.features, blocks=standing.blocks)),
        "class_distance": attempt(lambda: test.total_variation),
        "g": test.g,
        "p": test.p,
    }


PARTS: tuple[MetricPart, ...] = (
    *manifold_parts(Panel.DIVERSITY),
    *on_samples_and_draws(_SPREAD, Panel.DIVERSITY, "comparing classes", _measure),
    *CLASS_PARTS,
    *BIRTHDAY_PARTS,
)


def metrics(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> list[Metric]:
    """Turn what the parts left into metrics, those that decide first."""
    manifold = outputs[f"{MANIFOLD}.samples"], outputs_of_draws(outputs, MANIFOLD)
    classes = outputs[f"{CLASSES}.samples"], outputs_of_draws(outputs, CLASSES)
    against = (
        f"{facts.compared} samples against {facts.held_out_rows} held-out rows, {facts.features} features of "
        f"{facts.extractor}"
    )
    wise = {each.name: each.values(*classes, facts) for each in _CLASSWISE}
    reached = f"share of held-out rows nearer to a sample than the sample's {K}th nearest sample is"
    covered = f"share of held-out rows with a sample nearer than their {K}th nearest held-out row"
    closed = (
        expected_coverage(facts.held_out_rows, facts.compared)
        if min(facts.held_out_rows, facts.compared) > K
        else math.nan
    )
    expected = (
        ""
        if math.isnan(closed)
        else f". Of samples distributed as held-out rows {closed:.4f} is expected, in closed form"
    )
    decides = _per_precision(*manifold, facts)
    return [
        _shown("recall_per_precision", decides, facts, tolerance=PER_PRECISION_TOLERANCE, decides=True,
               method=f"recall over precision, as a ratio to real rows'; {against}; ends of both intervals combined",
               note="Samples that lie elsewhere than real rows lose recall and precision alike: what is lost of recall "
               "alone is variety", classes=wise["recall_per_precision"].classes),
        *effective_metrics(outputs, facts),
        _shown("vendi_ratio", _vendi(outputs, facts), facts, tolerance=VENDI_TOLERANCE, decides=True,
               method=f"Vendi score (order 1, cosine similarity) over that of as many training rows; {facts.compared} "
               f"samples, {facts.features} features of {facts.extractor}; block jackknife; Friedman and Dieng 2023",
               classes=wise["vendi_ratio"].classes),
        _class_distance(outputs, facts),
        *worst_metrics(wise.values(), facts),
        _shown("recall", _plain(*manifold, "recall", facts), facts, tolerance=RECALL_TOLERANCE, note=_ELSEWHERE,
               method=f"{reached}; {against}; Kynkäänniemi et al. 2019", classes=wise["recall"].classes),
        _shown("coverage", _plain(*manifold, "coverage", facts), facts, tolerance=RECALL_TOLERANCE,
               method=f"{covered}; {against}; Naeem et al. 2020", note=_ELSEWHERE + expected,
               classes=wise["coverage"].classes),
    ]  # fmt: skip


def _per_precision(sample: JSON, draws: Sequence[JSON], facts: EvidenceSummary) -> tuple[JSON, Null | None]:
    return relative_to_reference(
        recall_per_precision(sample), list(map(recall_per_precision, draws)), facts.compared, facts.training_rows
    )


def recall_per_precision(measured: Mapping[str, JSON]) -> JSON:
    """Recall over precision, of one set against real rows."""
    return over(measured["recall"], measured["precision"])


def _pick(name: str, measured: Mapping[str, JSON]) -> JSON:
    return measured[name]


_CLASSWISE = (
    PerClassMetric(name="recall_per_precision", pick=recall_per_precision, tolerance=WORST_TOLERANCE, decides=True),
    PerClassMetric(name="recall", pick=partial(_pick, "recall"), tolerance=WORST_TOLERANCE, relative=False),
    PerClassMetric(name="coverage", pick=partial(_pick, "coverage"), tolerance=WORST_TOLERANCE, relative=False),
    PerClassMetric(name="vendi_ratio", pick=partial(_pick, "vendi"), tolerance=WORST_TOLERANCE),
)


def _plain(sample: JSON, draws: Sequence[JSON], key: str, facts: EvidenceSummary) -> tuple[JSON, Null | None]:
    return sample[key], null_from_draws([each[key] for each in draws], facts.compared, facts.training_rows)


def _vendi(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> tuple[JSON, Null | None]:
    draws = [each["vendi"] for each in outputs_of_draws(outputs, _SPREAD)]
    return relative_to_reference(outputs[f"{_SPREAD}.samples"]["vendi"], draws, facts.compared, facts.training_rows)


def _class_distance(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> Metric:
    found = outputs[f"{_SPREAD}.samples"]
    draws = [each["class_distance"] for each in outputs_of_draws(outputs, _SPREAD)]
    null = null_from_draws(draws, facts.compared, facts.training_rows)
    return build_metric(
        "class_distance", Panel.DIVERSITY, found["class_distance"], null=null, better="lower",
        tolerance=CLASS_TOLERANCE,
        decides=True, samples=facts.compared,
        method=f"total variation between the classes {facts.classifier} reads of {facts.compared} samples and of "
        f"{facts.held_out_rows} held-out rows",
        note=f"G-test of equal shares: G = {found['g']:.4g}, p = {found['p']:.2g}",
    )  # fmt: skip


def _shown(name: str, found: tuple[JSON, Null | None], facts: EvidenceSummary, **more: Any) -> Metric:
    output, null = found
    return build_metric(name, Panel.DIVERSITY, output, null=null, better="higher", samples=facts.compared, **more)
