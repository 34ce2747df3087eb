"""Label fidelity: do samples show the label they were asked for?

The classifier reads every sample; what it gets wrong of held-out rows is what real data scores. The same noise drawn
under every label shows whether the label is heeded at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fount.intervals import wilson_interval
from service.evaluation.evidence import Evidence, RealRows, Samples
from service.evaluation.panels.estimates import build_metric, null_from_interval, to_json
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart
from service.evaluation.panels.per_class import lowest
from service.evaluation.panels.reference_sample import generator
from service.evaluation.results import ClassValue, Metric, Null, Panel
from service.evaluation.statistics.intervals import Estimate, jackknife_interval
from service.evaluation.verdicts import compare_with_null

__all__ = ["PARTS", "metrics"]

AGREEMENT_TOLERANCE = 0.02
"""One sample in fifty with another label than asked for."""
WORST_TOLERANCE = 0.05
RESPONSE_TOLERANCE = 0.05
_SIMULATIONS = 400
_MISSING = {"value": None, "interval": None, "note": "there are no answers of the same noise under every label"}


def _agreement(evidence: Evidence) -> JSON:
    samples, held_out = (_hits(rows, len(evidence.classes)) for rows in (evidence.samples, evidence.held_out))
    return {"samples": samples, "held_out": held_out, "null": _worst_null(samples, held_out, evidence.seed)}


def _answers(evidence: Evidence) -> JSON:
    answers = evidence.label_grid
    if answers is None or not len(answers.images):
        return {"response": _MISSING, "effect": _MISSING, "addresses": 0}
    heeded = (answers.predicted == np.arange(answers.predicted.shape[1])).mean(axis=1)
    return {
        "response": to_json(_mean_over_addresses(heeded)),
        "effect": to_json(_label_effect(answers.images)),
        "addresses": len(heeded),
    }


PARTS: tuple[MetricPart, ...] = (
    MetricPart(name="agreement", panel=Panel.LABEL_FIDELITY, stage="reading labels", compute=_agreement),
    MetricPart(name="answers", panel=Panel.LABEL_FIDELITY, stage="reading labels", compute=_answers),
)


def metrics(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> list[Metric]:
    """Turn what the parts left into metrics, those that decide first."""
    found, answers = outputs["agreement"], outputs["answers"]
    agreement = _agreement_metric(found, facts)
    return [agreement, _worst_metric(found, facts), *_answers_metrics(answers, found, facts)]


def _agreement_metric(found: JSON, facts: EvidenceSummary) -> Metric:
    own, real = _share(found["samples"]), _share(found["held_out"])
    return build_metric(
        "label_agreement", Panel.LABEL_FIDELITY, own, null=null_from_interval(real, facts.held_out_rows), better="higher",  # noqa: E501
        tolerance=AGREEMENT_TOLERANCE, decides=True, samples=facts.samples, classes=_by_class(found, facts),
        method=f"share of samples of which {facts.classifier} reads the label asked for; Wilson interval; real: "
        f"{facts.held_out_rows} held-out rows and their labels",
        note="The classifier is wrong of real rows as well, by what they score",
    )  # fmt: skip


def _by_class(found: JSON, facts: EvidenceSummary) -> tuple[ClassValue, ...]:
    values = []
    for name, hits, of, real_hits, real_of in _rows(found, facts):
        null = (
            Null(mean=real_hits / real_of, range=wilson_interval(real_hits, real_of), draws=0, rows=real_of)
            if real_of
            else None
        )
        if not of:
            values.append(ClassValue(class_name=name, value=None, null_mean=None if null is None else null.mean))
            continue
        value, interval = hits / of, wilson_interval(hits, of)
        verdict = compare_with_null(value, interval, null, "higher", WORST_TOLERANCE)
        mean = None if null is None else null.mean
        values.append(ClassValue(class_name=name, value=value, interval=interval, null_mean=mean, verdict=verdict))
    return tuple(values)


def _worst_metric(found: JSON, facts: EvidenceSummary) -> Metric:
    ratios = [
        (
            name,
            hits / of / (real_hits / real_of),
            tuple(end / (real_hits / real_of) for end in wilson_interval(hits, of)),
        )
        for name, hits, of, real_hits, real_of in _rows(found, facts)
        if of and real_hits
    ]
    output, note = lowest([(name, value, (ends[0], ends[1])) for name, value, ends in ratios])
    ends = found["null"]
    null = None
    if ends is not None:
        null = Null(mean=ends[1], range=(ends[0], ends[2]), draws=_SIMULATIONS, rows=facts.samples)
    return build_metric(
        "worst_class_agreement", Panel.LABEL_FIDELITY, output, null=null, better="higher", tolerance=WORST_TOLERANCE,
        decides=True, samples=facts.samples, note=note,
        method="the lowest over classes of label agreement over held-out rows' in that class; Wilson interval widened "
        "for "
        f"taking the lowest; real: {_SIMULATIONS} simulations of classes as right as held-out rows",
    )  # fmt: skip


def _answers_metrics(answers: JSON, found: JSON, facts: EvidenceSummary) -> list[Metric]:
    count = answers["addresses"]
    shares = [real_hits / real_of for *_, real_hits, real_of in _rows(found, facts) if real_of]
    null = None
    if shares:
        spread = 1.96 * float(np.sqrt(sum(p * (1 - p) / of for p, of in zip(shares, _real_counts(found), strict=True))))
        mean = float(np.mean(shares))
        ends = mean - spread / len(shares), min(1.0, mean + spread / len(shares))
        null = Null(mean=mean, range=ends, draws=0, rows=facts.held_out_rows)
    noises = f"{count} noises under each of {len(facts.classes)} labels"
    return [
        build_metric(
            "label_response", Panel.LABEL_FIDELITY, answers["response"], null=null, better="higher",
            tolerance=RESPONSE_TOLERANCE, decides=True, samples=count * len(facts.classes),
            method=f"share of samples of which {facts.classifier} reads the label, {noises}; jackknife over noises; "
            f"real: "
            "held-out rows, every class counting the same",
        ),
        build_metric(
            "label_effect", Panel.LABEL_FIDELITY, answers["effect"], null=None, better="higher",
            samples=count * len(facts.classes),
            method=f"mean pixel distance between labels at equal noise over that between noises at equal label; "
            f"{noises}",
            note="Near 0: the label is ignored. Real rows have no noise to hold equal",
        ),
    ]  # fmt: skip


def _hits(rows: Samples | RealRows, classes: int) -> list[list[int]]:
    """Of each class, [right, of]."""
    if rows.labels is None:
        return [[0, 0]] * classes
    right = rows.labels[np.argmax(rows.probabilities, axis=1) == rows.labels]
    return np.stack([np.bincount(each, minlength=classes) for each in (right, rows.labels)], axis=1).tolist()  # type: ignore[no-any-return]


def _rows(found: JSON, facts: EvidenceSummary) -> list[tuple[str, int, int, int, int]]:
    pairs = zip(facts.classes, found["samples"], found["held_out"], strict=True)
    return [(name, *own, *real) for name, own, real in pairs]


def _real_counts(found: JSON) -> list[int]:
    return [of for _, of in found["held_out"] if of]


def _share(pairs: list[list[int]]) -> JSON:
    hits, of = (sum(each[column] for each in pairs) for column in (0, 1))
    if not of:
        return {"value": None, "interval": None, "note": "samples were not asked for by label"}
    return to_json(Estimate(hits / of, wilson_interval(hits, of)))


def _worst_null(samples: list[list[int]], held_out: list[list[int]], seed: int) -> list[float] | None:
    """[2.5 %, mean, 97.5 %] of the lowest ratio if samples were right as often as held-out rows are.

    Both sides are simulated, since the share of held-out rows is itself an estimate.
    """
    counts = [(of, hits, real) for (_, of), (hits, real) in zip(samples, held_out, strict=True) if of and hits]
    if not counts:
        return None
    drawing = generator(seed, "agreement")
    of, hits, real = (np.array(column) for column in zip(*counts, strict=True))
    # One failure more than was seen, so that a class without any is not taken for one that cannot fail.
    share = np.minimum(hits, real - 0.5) / real
    size = (_SIMULATIONS, len(of))
    own, other = drawing.binomial(of, share, size) / of, np.maximum(1, drawing.binomial(real, share, size)) / real
    worst = (own / other).min(axis=1)
    low, high = np.quantile(worst, (0.025, 0.975))
    return [float(low), float(worst.mean()), float(high)]


def _mean_over_addresses(values: NDArray[np.float64]) -> Estimate:
    """A mean whose answers depend on each other within an address, so that addresses are left out one by one."""
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Estimate(mean)
    left_out = (values.sum() - values) / (n - 1)
    low, high = jackknife_interval(mean, left_out)
    return Estimate(mean, (max(0.0, low), min(1.0, high)))


def _label_effect(images: NDArray[np.uint8]) -> Estimate:
    """Mean distance between labels at equal noise over mean distance between noises at equal label."""
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)  # (a, classes, H·W·C)
    between_noises = _mean_distance(flat.transpose(1, 0, 2))
    if not between_noises:
        return Estimate(float("nan"))
    return Estimate(_mean_distance(flat) / between_noises)


def _mean_distance(groups: NDArray[np.float64]) -> float:
    """Mean Euclidean distance between members of a group: groups (g, n, d), each row with the next one round."""
    if groups.shape[1] < 2:
        return 0.0
    return float(np.linalg.norm(groups - np.roll(groups, 1, axis=1), axis=2).mean())
