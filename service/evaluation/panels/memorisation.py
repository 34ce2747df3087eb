"""Memorisation: are samples copies of training rows?

A copy lies much nearer to one training row than to the next ones. How near is still innocent is told by held-out rows,
which cannot be copies: half of them set the threshold, the other half show what real rows score at it. Being near to
training rows in general (a typical, unadventurous sample) is not copying, and the ratio does not take it for that.

Source: Carlini et al., "Extracting training data from diffusion models", 2023 (nearest distance over that of the next);
the calibration on held-out rows is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import NEIGHBOURS, Evidence
from service.evaluation.panels.estimates import attempt, build_metric, null_from_interval
from service.evaluation.panels.part import JSON, EvidenceSummary, MetricPart
from service.evaluation.panels.reference_sample import generator
from service.evaluation.results import Better, Metric, Panel
from service.evaluation.statistics.copies import copy_ratios, copy_threshold, estimate_copy_rate, nearest_auc
from service.evaluation.statistics.hashes import difference_hashes, exact_hashes, near_matches
from service.evaluation.statistics.intervals import Estimate, clopper_pearson_interval

__all__ = ["PARTS", "metrics"]

SHARE, STRICT_SHARE = 0.01, 0.001
"""Of held-out rows, how many lie below the threshold."""
COPY_TOLERANCE = 0.02
"""Two samples in a hundred that are nearer to a training row than real rows come."""
EXACT_TOLERANCE = 0.001
_AUC_TOLERANCE = 0.05
_BITS = 2


def _copies(space: str, evidence: Evidence) -> JSON:
    found = evidence.nearest.get(space)
    if found is None:
        raise KeyError(f"the evidence has no nearest training rows in {space}")
    ratios, real = copy_ratios(found.sample_distances), copy_ratios(found.held_out_distances)
    chosen = generator(evidence.seed, "halves").permutation(len(real))
    calibrating, others = real[chosen[: len(real) // 2]], real[chosen[len(real) // 2 :]]
    rates = {
        name: _rate(ratios, calibrating, others, share)
        for name, share in {"rate": SHARE, "strict": STRICT_SHARE}.items()
    }
    nearest, real_nearest = found.sample_distances[:, 0], found.held_out_distances[:, 0]
    halves = real_nearest[chosen[: len(real) // 2]], real_nearest[chosen[len(real) // 2 :]]
    return rates | {
        "auc": {
            "samples": attempt(lambda: nearest_auc(nearest, real_nearest)),
            "real": attempt(lambda: nearest_auc(halves[1], halves[0])),
        }
    }


def _rate(
    ratios: NDArray[np.float64], calibrating: NDArray[np.float64], others: NDArray[np.float64], share: float
) -> JSON:
    """The copy rate of samples and of real rows at one threshold; with few rows the share is what one row makes up."""
    known = max(1, int(np.count_nonzero(~np.isnan(calibrating))))
    taken = min(0.5, max(share, 1 / known))
    try:
        threshold = copy_threshold(calibrating, taken)
    except ValueError as error:
        missing = {"value": None, "interval": None, "note": str(error)}
        return {"samples": missing, "real": missing, "share": taken, "threshold": None}
    return {
        "samples": attempt(lambda: estimate_copy_rate(ratios, threshold)),
        "real": attempt(lambda: estimate_copy_rate(others, threshold)),
        "share": taken,
        "threshold": threshold,
    }


def _hashes(evidence: Evidence) -> JSON:
    training = _hash(evidence.training.images)
    near = difference_hashes(evidence.training.images)
    return {
        "exact": {
            side: _share(np.isin(_hash(images), training))
            for side, images in (("samples", evidence.samples.images), ("real", evidence.held_out.images))
        },
        "near": {
            side: _share(near_matches(difference_hashes(images), near, _BITS))
            for side, images in (("samples", evidence.samples.images), ("real", evidence.held_out.images))
        },
    }


PARTS: tuple[MetricPart, ...] = (
    MetricPart(
        name="copies.pixels", panel=Panel.MEMORISATION, stage="looking for copies", compute=partial(_copies, "pixels")
    ),
    MetricPart(
        name="copies.features",
        panel=Panel.MEMORISATION,
        stage="looking for copies",
        compute=partial(_copies, "features"),
    ),
    MetricPart(name="hashes", panel=Panel.MEMORISATION, stage="looking for copies", compute=_hashes),
)


def metrics(outputs: Mapping[str, JSON], facts: EvidenceSummary) -> list[Metric]:
    """Turn what the parts left into metrics, those that decide first."""
    pixels, features = outputs["copies.pixels"], outputs["copies.features"]
    return [
        _copy_rate("copy_rate", pixels["rate"], facts, "pixels", decides=True),
        _copy_rate("copy_rate_features", features["rate"], facts, "features", decides=True),
        _matches("exact_copies", outputs["hashes"]["exact"], facts, decides=True),
        _copy_rate("copy_rate_strict", pixels["strict"], facts, "pixels"),
        _matches("near_copies", outputs["hashes"]["near"], facts),
        _shift("nearest_auc", pixels["auc"], facts, "pixels"),
        _shift("nearest_auc_features", features["auc"], facts, "features"),
    ]


def _copy_rate(name: str, found: JSON, facts: EvidenceSummary, space: str, *, decides: bool = False) -> Metric:
    rows = facts.held_out_rows - facts.held_out_rows // 2
    return build_metric(
        name, Panel.MEMORISATION, found["samples"], null=null_from_interval(found["real"], rows), better="lower",
        tolerance=COPY_TOLERANCE, decides=decides, samples=facts.samples,
        method="share of samples whose nearest training row is nearer, relative to the next "
        f"{NEIGHBOURS - 1}, than {found['share']:.3g} of held-out rows have it; {space}, {facts.training_rows} "
        f"training "
        "rows; threshold from one half of the held-out rows, real from the other; Clopper-Pearson interval; Carlini et "
        "al. 2023",
        note=f"Real rows score about {found['share']:.3g} by how the threshold is chosen",
    )  # fmt: skip


def _matches(name: str, found: JSON, facts: EvidenceSummary, *, decides: bool = False) -> Metric:
    exact = name == "exact_copies"
    how = (
        "equal to a training row, pixel for pixel"
        if exact
        else f"whose difference hash of 64 bits differs from a training row's in {_BITS} at most"
    )
    note = (
        ""
        if exact
        else "Pictures of few pixels or simple shapes share hashes without being copies, so it does not decide"
    )
    return build_metric(
        name, Panel.MEMORISATION, found["samples"], null=null_from_interval(found["real"], facts.held_out_rows),
        better="lower",
        tolerance=EXACT_TOLERANCE if exact else COPY_TOLERANCE, decides=decides, samples=facts.samples, note=note,
        method=f"share of samples {how}; "
        "Clopper-Pearson interval; real: held-out rows",
    )  # fmt: skip


def _shift(name: str, found: JSON, facts: EvidenceSummary, space: str) -> Metric:
    better: Better = "null"
    return build_metric(
        name, Panel.MEMORISATION, found["samples"], null=null_from_interval(found["real"], facts.held_out_rows),
        better=better,
        tolerance=_AUC_TOLERANCE, samples=facts.samples,
        method=f"how often a sample is farther from its nearest training row than a held-out row is, {space}; DeLong "
        "interval; Meehan et al. 2020 (as a share, not a Z)",
        note="Below a half samples are nearer: copies, or typical rows alone. Above it they are farther: poor "
        "samples. It "
        "does not tell these apart, so it does not decide",
    )  # fmt: skip


def _share(hits: NDArray[np.bool_]) -> JSON:
    count = int(np.count_nonzero(hits))
    return attempt(lambda: Estimate(count / max(1, len(hits)), clopper_pearson_interval(count, len(hits))))


def _hash(images: NDArray[np.uint8]) -> NDArray[np.void]:
    return exact_hashes(images).view("V16")[:, 0]
