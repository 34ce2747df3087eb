"""Realism: do samples look like real rows?

Precision and density decide: they ask of each sample whether it lies where real rows lie, and do not mind which real
rows are never reached. Distances between distributions react to missing variety and to wrong labels as well, so they
are shown beside what real rows score and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import (
    attempt,
    build_metric,
    null_from_draws,
    on_samples_and_draws,
    outputs_of_draws,
)
from service.evaluation.panels.manifold import MANIFOLD, manifold_parts
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart, cached_per_evidence
from service.evaluation.panels.reference_sample import ImageSet, held_out
from service.evaluation.results import Better, Metric, Null, Panel
from service.evaluation.statistics.fid import Moments, estimate_fid
from service.evaluation.statistics.inception_score import estimate_inception_score
from service.evaluation.statistics.kid import estimate_kid, kernel_state
from service.evaluation.statistics.precision_recall import K
from service.evaluation.statistics.sliced_wasserstein import SlicedReference, estimate_sliced_wasserstein

__all__ = ["PARTS", "metrics"]

_DISTANCES = "distances"
_ALSO_VARIETY = "It reacts to missing variety too, so it does not decide"
PRECISION_TOLERANCE = 0.05
"""One sample in twenty that lies where no real row does."""
DENSITY_TOLERANCE = 0.15


def _measure(standing: ImageSet, evidence: Evidence) -> JSON:
    rows, real, blocks = standing.features, held_out(evidence).features, standing.blocks
    return {
        "fid": attempt(
            lambda: estimate_fid(rows, cached_per_evidence(evidence, "moments", lambda: Moments.of(real)), blocks)
        ),
        "kid": attempt(
            lambda: estimate_kid(rows, cached_per_evidence(evidence, "kernel", lambda: kernel_state(real)), blocks)
        ),
        "inception_score": attempt(lambda: estimate_inception_score(standing.probabilities, blocks)),
    }


def _measure_pixels(standing: ImageSet, evidence: Evidence) -> JSON:
    rows, real = (each.images.reshape(len(each), -1) for each in (standing, held_out(evidence)))  # (n, H·W·C)
    reference = cached_per_evidence(evidence, "sliced", lambda: SlicedReference.of(real, evidence.seed))
    return {"sliced_wasserstein": attempt(lambda: estimate_sliced_wasserstein(rows, reference, standing.blocks))}


PARTS: tuple[MetricPart, ...] = (
    *on_samples_and_draws(_DISTANCES, Panel.REALISM, "comparing features", _measure),
    *on_samples_and_draws("pixels", Panel.REALISM, "comparing pixels", _measure_pixels),
    *manifold_parts(Panel.REALISM),
)


def metrics(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> list[Metric]:
    """Turn what the parts left into metrics, those that decide first."""
    against = f"{facts.compared} samples against {facts.held_out_rows} held-out rows"
    features = f"{facts.features} features of {facts.extractor}, {against}"
    shown = partial(_metric, outputs, facts)
    return [
        shown(
            "precision", MANIFOLD, "higher", tolerance=PRECISION_TOLERANCE, decides=True,
            method=f"share of samples nearer to a held-out row than its {K}th nearest held-out row is; {features}; "
            "Kynkäänniemi et al. 2019",
        ),
        shown(
            "density", MANIFOLD, "higher", tolerance=DENSITY_TOLERANCE, decides=True,
            method=f"how many held-out rows' neighbourhoods hold a sample, over {K}; {features}; Naeem et al. 2020",
            note="Above 1 is fine: samples are where real rows are dense",
        ),
        shown(
            "realism_median", MANIFOLD, "higher", output="realism",
            method=f"median over samples of the largest radius over distance to a held-out row; {features}; "
            "Kynkäänniemi et al. 2019",
            note="Above 1: inside a real row's neighbourhood",
        ),
        shown(
            "fid", _DISTANCES, "lower",
            method=f"Fréchet distance of normal distributions; {features}; block jackknife; Heusel et al. 2017",
            note=f"{_ALSO_VARIETY}. Comparable only with values of the same extractor and the same sizes",
        ),
        shown(
            "kid", _DISTANCES, "lower",
            method=f"squared MMD with the kernel (x·y/d + 1)³, unbiased; {features}; Bińkowski et al. 2018",
            note=f"{_ALSO_VARIETY}. It may be below 0",
        ),
        shown(
            "sliced_wasserstein", "pixels", "lower",
            method=f"2-Wasserstein distance over random directions, pixels from 0 to 1; {against}; Rabin et al. 2011",
            note=_ALSO_VARIETY,
        ),
        shown(
            "inception_score", _DISTANCES, "higher",
            method=f"exp of the mean divergence of class probabilities from their mean, read by {facts.classifier}; "
            f"{facts.compared} samples; Salimans et al. 2016",
            note=f"At most {len(facts.classes)}, the number of classes; sure predictions raise it, real or not, so it "
            "does not decide",
        ),
    ]  # fmt: skip


def _metric(
    outputs: Mapping[str, JSON], facts: EvidenceSummary, name: str, part: str, better: Better, *, method: str, note: str = "",  # noqa: E501
    tolerance: float | None = None, decides: bool = False, output: str = "",
) -> Metric:  # fmt: skip
    key = output or name
    null = null_from_draws([each[key] for each in outputs_of_draws(outputs, part)], facts.compared, facts.training_rows)
    return build_metric(
        name, Panel.REALISM, outputs[f"{part}.samples"][key], null=null, better=better, method=method, note=note,
        samples=facts.compared, decides=decides, tolerance=_tolerance(null) if tolerance is None else tolerance,
    )  # fmt: skip


def _tolerance(null: Null | None) -> float:
    """Of a metric that does not decide and has a scale of its own: a tenth of what real rows score."""
    return 0.0 if null is None else abs(null.mean) / 10
