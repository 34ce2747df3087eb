"""Diversity panel: are there as many different samples as real rows, overall and within each class?

Recall and coverage fall when samples miss real rows, and also when samples lie elsewhere: unrealistic samples reach
nothing. So they are shown, and what decides is recall over precision (samples that lie elsewhere lose both alike), the
effective size of the birthday test, the Vendi score, and the shares of the classes. Within each class the collapse of
that class alone shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from service.evaluation.evidence import Evidence
from service.evaluation.panels.effective_size import EFFECTIVE_SIZE_PARTS, FEWEST_IN_CLASS, effective_size_metrics
from service.evaluation.panels.estimates import (
    build_metric,
    estimate_or_note,
    null_from_draws,
    relative_to_reference,
)
from service.evaluation.panels.manifold import MANIFOLD, manifold_parts, measure_manifold
from service.evaluation.panels.parts import (
    JSON,
    MetricPart,
    held_out,
    outputs_of_draws,
    parts_with_draws,
    samples_or_reference,
)
from service.evaluation.panels.per_class import PerClassMetric, worst_class_metric
from service.evaluation.results import Metric, Panel
from service.evaluation.statistics.histogram import compare_histograms
from service.evaluation.statistics.precision_recall import K, expected_coverage
from service.evaluation.statistics.vendi_score import estimate_vendi

__all__ = ["FEWEST_SAMPLES", "METRICS", "PARTS", "build_metrics"]

FEWEST_SAMPLES = 100
METRICS = (
    "recall_per_precision", "effective_size_ratio", "effective_size", "worst_class_effective_size_ratio",
    "vendi_ratio", "class_distance", "worst_class_recall_per_precision", "worst_class_recall", "worst_class_coverage",
    "worst_class_vendi_ratio", "recall", "coverage",
)  # fmt: skip
"""Names, in the order of the report."""

RECALL_TOLERANCE = 0.1
PER_PRECISION_TOLERANCE = 0.2
"""A fifth of what samples could reach at their precision is not reached."""
VENDI_TOLERANCE = 0.15
CLASS_TOLERANCE = 0.05
"""One sample in twenty in another class than real rows."""
WORST_TOLERANCE = 0.5
"""Half of what real rows score, in the worst class: one class has few rows, and its numbers vary."""

_SPREAD, _CLASSES = "spread", "classes"
_ELSEWHERE = "Samples that lie elsewhere than real rows lower it too, so it does not decide"
_PER_CLASS = (
    PerClassMetric(name="recall_per_precision", tolerance=WORST_TOLERANCE, decides=True),
    PerClassMetric(name="recall", tolerance=WORST_TOLERANCE, relative=False),
    PerClassMetric(name="coverage", tolerance=WORST_TOLERANCE, relative=False),
    PerClassMetric(name="vendi_ratio", tolerance=WORST_TOLERANCE),
)


def _measure_spread(draw: int | None, evidence: Evidence) -> JSON:
    images, real = samples_or_reference(evidence, draw), held_out(evidence)
    if images is None:
        return None
    test = compare_histograms(
        *(np.bincount(each.predicted, minlength=len(evidence.classes)) for each in (images, real))
    )
    return {
        "vendi": estimate_or_note(lambda: estimate_vendi(images.features, blocks=images.blocks)),
        "class_distance": estimate_or_note(lambda: test.total_variation),
        "g": test.g,
        "p": test.p,
    }


def _measure_classes(draw: int | None, evidence: Evidence) -> JSON:
    return [_measure_class(draw, evidence, class_id) for class_id in range(len(evidence.classes))]


def _measure_class(draw: int | None, evidence: Evidence, class_id: int) -> JSON:
    images, real = samples_or_reference(evidence, draw, class_id), held_out(evidence, class_id)
    if images is None or min(len(images), len(real)) < FEWEST_IN_CLASS:
        return None
    measured = measure_manifold(draw, evidence, class_id)
    vendi = estimate_or_note(lambda: estimate_vendi(images.features, blocks=images.blocks))
    return {name: measured[name] for name in ("recall_per_precision", "recall", "coverage")} | {"vendi_ratio": vendi}


PARTS: tuple[MetricPart, ...] = (
    *manifold_parts(Panel.DIVERSITY),
    *parts_with_draws(_SPREAD, Panel.DIVERSITY, "comparing classes", _measure_spread),
    *parts_with_draws(_CLASSES, Panel.DIVERSITY, "comparing within classes", _measure_classes),
    *EFFECTIVE_SIZE_PARTS,
)


def build_metrics(outputs: Mapping[str, JSON], evidence: Evidence) -> list[Metric]:
    """Make metrics of the outputs of the parts, those that decide first."""
    manifold, manifold_draws = outputs[f"{MANIFOLD}.samples"], outputs_of_draws(outputs, MANIFOLD)
    spread, spread_draws = outputs[f"{_SPREAD}.samples"], outputs_of_draws(outputs, _SPREAD)
    class_outputs = (outputs[f"{_CLASSES}.samples"], *outputs_of_draws(outputs, _CLASSES))
    per_class = {}
    for each in _PER_CLASS:
        own, *draws = ([output and output[each.name] for output in table] for table in class_outputs)
        per_class[each.name] = each.compare(own, draws, evidence)
    drawn = evidence.compared, len(evidence.training)
    features = f"{evidence.samples.features.shape[1]} features of {evidence.extractor}"
    sizes = f"{evidence.compared} samples and {len(evidence.held_out)} held-out rows, {features}"
    metric = partial(build_metric, panel=Panel.DIVERSITY, samples=evidence.compared)
    relative_recall, recall_null = relative_to_reference(
        manifold["recall_per_precision"], [each["recall_per_precision"] for each in manifold_draws], *drawn
    )
    relative_vendi, vendi_null = relative_to_reference(
        spread["vendi"], [each["vendi"] for each in spread_draws], *drawn
    )
    return [
        metric(
            "recall_per_precision", output=relative_recall, null=recall_null, better="higher",
            tolerance=PER_PRECISION_TOLERANCE, decides=True,
            method=f"recall over precision, divided by that of real rows; {sizes}; both intervals combined",
            note="Samples that lie elsewhere than real rows lose recall and precision alike: a loss of recall alone is "
            "a loss of variety",
            classes=per_class["recall_per_precision"].classes,
        ),
        *effective_size_metrics(outputs, evidence),
        metric(
            "vendi_ratio", output=relative_vendi, null=vendi_null, better="higher", tolerance=VENDI_TOLERANCE,
            decides=True,
            method=f"Vendi score (order 1, cosine similarity) over that of as many training rows; {evidence.compared} "
            f"samples, {features}; block jackknife; Friedman and Dieng 2023",
            classes=per_class["vendi_ratio"].classes,
        ),
        metric(
            "class_distance", output=spread["class_distance"],
            null=null_from_draws([each["class_distance"] for each in spread_draws], *drawn), better="lower",
            tolerance=CLASS_TOLERANCE, decides=True,
            method=f"total variation between the classes that {evidence.classifier} predicts for {evidence.compared} "
            f"samples and for {len(evidence.held_out)} held-out rows",
            note=f"G-test of equal shares: G = {spread['g']:.4g}, p = {spread['p']:.2g}",
        ),
        *(worst_class_metric(each, evidence) for each in per_class.values()),
        metric(
            "recall", output=manifold["recall"],
            null=null_from_draws([each["recall"] for each in manifold_draws], *drawn), better="higher",
            tolerance=RECALL_TOLERANCE,
            method=f"share of held-out rows nearer to a sample than the sample's {K}th nearest sample is; {sizes}; "
            "Kynkäänniemi et al. 2019",
            note=_ELSEWHERE,
            classes=per_class["recall"].classes,
        ),
        metric(
            "coverage", output=manifold["coverage"],
            null=null_from_draws([each["coverage"] for each in manifold_draws], *drawn), better="higher",
            tolerance=RECALL_TOLERANCE,
            method=f"share of held-out rows with a sample nearer than their {K}th nearest held-out row; {sizes}; "
            "Naeem et al. 2020",
            note=_ELSEWHERE + _expected_coverage(evidence),
            classes=per_class["coverage"].classes,
        ),
    ]  # fmt: skip


def _expected_coverage(evidence: Evidence) -> str:
    if min(len(evidence.held_out), evidence.compared) <= K:
        return ""
    expected = expected_coverage(len(evidence.held_out), evidence.compared)
    return f". For samples with the distribution of held-out rows {expected:.4f} is expected, in closed form"
