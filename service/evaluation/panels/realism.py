"""Realism panel: do samples look like real rows? Precision, density, realism, FID, KID and others.

Precision and density decide: they depend on whether each sample lies where real rows lie, and not on which real rows
are never reached. Distances between distributions (FID, KID, sliced Wasserstein) react to missing variety and to wrong
labels as well, so they are shown next to what real rows score and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.evaluation.evidence import Evidence
from service.evaluation.panels.estimates import build_metric, estimate_or_note, null_from_draws
from service.evaluation.panels.manifold import MANIFOLD, manifold_parts
from service.evaluation.panels.parts import (
    JSON,
    MetricPart,
    held_out,
    outputs_of_draws,
    parts_with_draws,
    samples_or_reference,
)
from service.evaluation.results import Better, Metric, Panel
from service.evaluation.statistics.fid import Moments, estimate_fid
from service.evaluation.statistics.inception_score import estimate_inception_score
from service.evaluation.statistics.kid import KernelSums, estimate_kid
from service.evaluation.statistics.precision_recall import K
from service.evaluation.statistics.sliced_wasserstein import SlicedReference, estimate_sliced_wasserstein

__all__ = ["FEWEST_SAMPLES", "METRICS", "PARTS", "build_metrics"]

FEWEST_SAMPLES = 100
METRICS = ("precision", "density", "realism_median", "fid", "kid", "sliced_wasserstein", "inception_score")
"""Names, in the order of the report."""

_DISTANCES, _PIXELS = "distances", "pixels"
_ALSO_VARIETY = "It reacts to missing variety too, so it does not decide"

PRECISION_TOLERANCE = 0.05
"""One sample in twenty that lies where no real row does."""
DENSITY_TOLERANCE = 0.15


def _measure_distances(draw: int | None, evidence: Evidence) -> JSON:
    images, real = samples_or_reference(evidence, draw), held_out(evidence).features
    if images is None:
        return None
    rows, blocks, cached = images.features, images.blocks, evidence.cached
    return {
        "fid": estimate_or_note(lambda: estimate_fid(rows, cached("moments", lambda: Moments.of(real)), blocks)),
        "kid": estimate_or_note(lambda: estimate_kid(rows, cached("kernel", lambda: KernelSums.of(real)), blocks)),
        "inception_score": estimate_or_note(lambda: estimate_inception_score(images.probabilities, blocks)),
    }


def _measure_pixels(draw: int | None, evidence: Evidence) -> JSON:
    images, real = samples_or_reference(evidence, draw), held_out(evidence).images
    if images is None:
        return None
    rows, blocks = images.images.reshape(len(images), -1), images.blocks  # (n, H·W·C)
    reference = evidence.cached("sliced", lambda: SlicedReference.of(real.reshape(len(real), -1), evidence.seed))
    return {"sliced_wasserstein": estimate_or_note(lambda: estimate_sliced_wasserstein(rows, reference, blocks))}


PARTS: tuple[MetricPart, ...] = (
    *parts_with_draws(_DISTANCES, Panel.REALISM, "comparing features", _measure_distances),
    *parts_with_draws(_PIXELS, Panel.REALISM, "comparing pixels", _measure_pixels),
    *manifold_parts(Panel.REALISM),
)


def build_metrics(outputs: Mapping[str, JSON], evidence: Evidence) -> list[Metric]:
    """Make metrics of the outputs of the parts, those that decide first."""
    sizes = f"{evidence.compared} samples and {len(evidence.held_out)} held-out rows"
    features = f"{evidence.samples.features.shape[1]} features of {evidence.extractor}, {sizes}"

    def metric(
        name: str, part: str, better: Better, *, method: str, note: str = "", tolerance: float | None = None
    ) -> Metric:
        """Make one metric; those with a tolerance decide, that of others is a tenth of what real rows score."""
        draws = [each[name] for each in outputs_of_draws(outputs, part)]
        null = null_from_draws(draws, evidence.compared, len(evidence.training))
        tenth = 0.0 if null is None else abs(null.mean) / 10
        return build_metric(
            name,
            Panel.REALISM,
            outputs[f"{part}.samples"][name],
            null=null,
            better=better,
            method=method,
            note=note,
            samples=evidence.compared,
            decides=tolerance is not None,
            tolerance=tenth if tolerance is None else tolerance,
        )

    return [
        metric(
            "precision", MANIFOLD, "higher", tolerance=PRECISION_TOLERANCE,
            method=f"share of samples nearer to a held-out row than its {K}th nearest held-out row is; {features}; "
            "Kynkäänniemi et al. 2019",
        ),
        metric(
            "density", MANIFOLD, "higher", tolerance=DENSITY_TOLERANCE,
            method=f"how many held-out rows' neighbourhoods contain a sample, over {K}; {features}; Naeem et al. 2020",
            note="A value above 1 is no fault: samples are where real rows are dense",
        ),
        metric(
            "realism_median", MANIFOLD, "higher",
            method=f"median over samples of the largest radius over distance to a held-out row; {features}; "
            "Kynkäänniemi et al. 2019",
            note="Above 1: inside a real row's neighbourhood",
        ),
        metric(
            "fid", _DISTANCES, "lower",
            method=f"Fréchet distance of normal distributions; {features}; block jackknife; Heusel et al. 2017",
            note=f"{_ALSO_VARIETY}. Comparable only with values of the same extractor and the same sizes",
        ),
        metric(
            "kid", _DISTANCES, "lower",
            method=f"squared MMD with the kernel (x·y/d + 1)³, unbiased; {features}; block jackknife; "
            "Bińkowski et al. 2018",
            note=f"{_ALSO_VARIETY}. It may be below 0",
        ),
        metric(
            "sliced_wasserstein", _PIXELS, "lower",
            method=f"2-Wasserstein distance over random directions, pixels from 0 to 1; {sizes}; Rabin et al. 2011",
            note=_ALSO_VARIETY,
        ),
        metric(
            "inception_score", _DISTANCES, "higher",
            method="exponential of the mean divergence of class probabilities from their mean, predicted by "
            f"{evidence.classifier}; {evidence.compared} samples; Salimans et al. 2016",
            note=f"At most {len(evidence.classes)}, the number of classes; confident predictions raise it for images "
            "that are not realistic, too, so it does not decide",
        ),
    ]  # fmt: skip
