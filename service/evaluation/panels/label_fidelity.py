"""Label fidelity panel: do samples show the label that was requested?

The classifier predicts the class of every sample; its errors on held-out rows are what real data scores. The same noise
drawn under every label shows whether the label has an effect at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fount.intervals import wilson_interval
from service.evaluation.evidence import Evidence, RealRows, Samples
from service.evaluation.panels.estimates import build_metric, estimate_to_json, missing, null_from_interval
from service.evaluation.panels.parts import JSON, MetricPart, random_generator
from service.evaluation.panels.per_class import ClassRatio, worst_class
from service.evaluation.results import ClassValue, Metric, Null, Panel
from service.evaluation.statistics.intervals import Estimate, clip, jackknife_interval
from service.evaluation.statistics.rows import Float64s
from service.evaluation.verdicts import compare_with_null

__all__ = ["FEWEST_SAMPLES", "METRICS", "PARTS", "build_metrics"]

FEWEST_SAMPLES = 50
METRICS = ("label_agreement", "worst_class_agreement", "label_response", "label_effect")
"""Names, in the order of the report."""

AGREEMENT_TOLERANCE = 0.02
"""One sample in fifty with another label than requested."""
WORST_TOLERANCE = 0.05
RESPONSE_TOLERANCE = 0.05

_SIMULATIONS = 400
_MISSING = missing("there are no samples of the same noise under every label")

Counts = list[list[int]]
"""Of each class, [rows whose class is predicted correctly, rows]."""


def _measure_agreement(evidence: Evidence) -> JSON:
    samples, held_out = (_correct_counts(rows, len(evidence.classes)) for rows in (evidence.samples, evidence.held_out))
    null = _simulate_worst_class(samples, held_out, evidence.seed)
    return {"samples": samples, "held_out": held_out, "null": null}


def _correct_counts(rows: Samples | RealRows, classes: int) -> Counts:
    if rows.labels is None:
        return [[0, 0]] * classes
    correct = rows.labels[rows.predicted == rows.labels]
    counts = [np.bincount(each, minlength=classes) for each in (correct, rows.labels)]
    return [[int(hits), int(of)] for hits, of in zip(*counts, strict=True)]


def _simulate_worst_class(samples: Counts, held_out: Counts, seed: int) -> list[float] | None:
    """Simulate the lowest ratio over classes, for samples that are correct as often as held-out rows are.

    Both sides are simulated, since the share of held-out rows is itself an estimate.

    Returns:
        [2.5 % quantile, mean, 97.5 % quantile]; None: no class has samples and held-out rows.
    """
    counts = [(of, hits, real) for (_, of), (hits, real) in zip(samples, held_out, strict=True) if of and hits]
    if not counts:
        return None
    random = random_generator(seed, "agreement")
    of, hits, real = (np.array(column) for column in zip(*counts, strict=True))
    # Half a failure at least, so that a class without one is not taken for a class that cannot fail.
    share = np.minimum(hits, real - 0.5) / real
    size = (_SIMULATIONS, len(of))
    own, other = random.binomial(of, share, size) / of, np.maximum(1, random.binomial(real, share, size)) / real
    worst = (own / other).min(axis=1)
    low, high = np.quantile(worst, (0.025, 0.975))
    return [float(low), float(worst.mean()), float(high)]


def _measure_label_grid(evidence: Evidence) -> JSON:
    grid = evidence.label_grid
    if grid is None or not len(grid.images):
        return {"response": _MISSING, "effect": _MISSING, "addresses": 0}
    correct = (grid.predicted == np.arange(grid.predicted.shape[1])).mean(axis=1)  # (a,)
    return {
        "response": estimate_to_json(_mean_over_addresses(correct)),
        "effect": estimate_to_json(_label_effect(grid.images)),
        "addresses": len(correct),
    }


def _mean_over_addresses(values: Float64s) -> Estimate:
    """Estimate a mean; samples of one address depend on each other, so the jackknife leaves out whole addresses."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean)
    return clip(Estimate(mean, jackknife_interval(mean, (values.sum() - values) / (n - 1))), 0, 1)


def _label_effect(images: NDArray[np.uint8]) -> Estimate:
    """Divide the mean distance between labels at equal noise by that between noises at equal label."""
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)  # (a, classes, H·W·C)
    between_noises = _mean_distance(flat.transpose(1, 0, 2))
    return Estimate(_mean_distance(flat) / between_noises if between_noises else float("nan"))


def _mean_distance(groups: Float64s) -> float:
    """Average the Euclidean distance of each row of a group (g, n, d) to the next one, the last to the first."""
    if groups.shape[1] < 2:
        return 0.0
    return float(np.linalg.norm(groups - np.roll(groups, 1, axis=1), axis=2).mean())


_part = partial(MetricPart, panel=Panel.LABEL_FIDELITY, stage="reading labels")

PARTS: tuple[MetricPart, ...] = (
    _part(name="agreement", compute=_measure_agreement),
    _part(name="label_grid", compute=_measure_label_grid),
)


def build_metrics(outputs: Mapping[str, JSON], evidence: Evidence) -> list[Metric]:
    """Make metrics of the outputs of the parts, those that decide first."""
    agreement, grid = outputs["agreement"], outputs["label_grid"]
    simulated = agreement["null"]
    worst_null = None
    if simulated is not None:
        low, mean, high = simulated
        worst_null = Null(mean=mean, range=(low, high), draws=_SIMULATIONS, rows=len(evidence.samples))
    class_values, class_ratios = _compare_classes(agreement, evidence)
    worst, worst_note = worst_class(class_ratios)
    grid_samples = grid["addresses"] * len(evidence.classes)
    noises = f"{grid['addresses']} noises under each of {len(evidence.classes)} labels"
    metric = partial(build_metric, panel=Panel.LABEL_FIDELITY, better="higher")
    return [
        metric(
            "label_agreement", output=_overall_share(agreement["samples"]),
            null=null_from_interval(_overall_share(agreement["held_out"]), len(evidence.held_out)),
            tolerance=AGREEMENT_TOLERANCE, decides=True, samples=len(evidence.samples),
            classes=class_values,
            method=f"share of samples for which {evidence.classifier} predicts the requested label; Wilson interval; "
            f"real: {len(evidence.held_out)} held-out rows and their labels",
            note="The classifier errs on real rows as well: their value shows how often",
        ),
        metric(
            "worst_class_agreement", output=worst, null=worst_null, tolerance=WORST_TOLERANCE, decides=True,
            samples=len(evidence.samples),
            note=worst_note,
            method="the lowest over classes of label agreement, divided by that of the class's held-out rows; Wilson "
            f"interval widened for the choice of the lowest (Bonferroni); real: {_SIMULATIONS} simulations of classes "
            "that are correct as often as held-out rows",
        ),
        metric(
            "label_response", output=grid["response"], null=_mean_class_null(agreement["held_out"], evidence),
            tolerance=RESPONSE_TOLERANCE, decides=True, samples=grid_samples,
            method=f"share of samples for which {evidence.classifier} predicts the label, {noises}; jackknife over "
            "noises; real: held-out rows, every class with the same weight",
        ),
        metric(
            "label_effect", output=grid["effect"], null=None, samples=grid_samples,
            method=f"mean pixel distance between labels at equal noise over that between noises at equal label; "
            f"{noises}",
            note="Near 0: the label is ignored. Real rows have no noise that could be held equal",
        ),
    ]  # fmt: skip


def _overall_share(counts: Counts) -> JSON:
    hits, of = (sum(each[column] for each in counts) for column in (0, 1))
    if not of:
        return missing("no label was requested for the samples")
    return estimate_to_json(Estimate(hits / of, wilson_interval(hits, of)))


def _compare_classes(agreement: JSON, evidence: Evidence) -> tuple[tuple[ClassValue, ...], list[ClassRatio]]:
    """Compare the share of correct samples with that of held-out rows in each class; also as ratios."""
    values: list[ClassValue] = []
    ratios: list[ClassRatio] = []
    counts = zip(evidence.classes, agreement["samples"], agreement["held_out"], strict=True)
    for name, (hits, of), (real_hits, real_of) in counts:
        null = None
        if real_of:
            null = Null(mean=real_hits / real_of, range=wilson_interval(real_hits, real_of), draws=0, rows=real_of)
        mean = None if null is None else null.mean
        value, interval = (hits / of, wilson_interval(hits, of)) if of else (None, None)
        verdict = compare_with_null(value, interval, null, "higher", WORST_TOLERANCE)
        values.append(ClassValue(class_name=name, value=value, interval=interval, null_mean=mean, verdict=verdict))
        if value is not None and interval is not None and mean:
            ratios.append((name, value / mean, (interval[0] / mean, interval[1] / mean)))
    return tuple(values), ratios


def _mean_class_null(held_out: Counts, evidence: Evidence) -> Null | None:
    """Average the shares of held-out rows over classes, with the interval of a mean of independent shares."""
    counts = [(hits / of, of) for hits, of in held_out if of]
    if not counts:
        return None
    half = 1.96 * float(np.sqrt(sum(share * (1 - share) / of for share, of in counts))) / len(counts)
    mean = float(np.mean([share for share, _ in counts]))
    return Null(mean=mean, range=(mean - half, min(1.0, mean + half)), draws=0, rows=len(evidence.held_out))
