"""Memorisation panel: are samples copies of training rows?

A copy lies much nearer to one training row than to the next ones. How much nearer is usual is measured on held-out
rows, which cannot be copies: one half of them sets the threshold, the other half shows what real rows score at it. A
sample that is near to training rows in general (a typical image) is not a copy, and has no small ratio.

Where held-out rows are nearly copies themselves, copies would pass as like real: then nothing compared with them is
measurable. Exact copies are counted whatever held-out rows score.

A generator that also gives log-likelihoods shows overfitting before it copies: it finds the rows it was trained on
likelier than others.

Sources: Carlini et al., "Extracting training data from diffusion models", 2023 (nearest distance over that of the
next); Yeom et al., "Privacy risk in machine learning", 2018, section 4 (the gap of losses tells members); the
calibration on held-out rows is this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import NEIGHBOURS, Evidence, LogLikelihoods
from service.evaluation.panels.estimates import (
    build_metric,
    estimate_or_note,
    missing,
    not_measurable,
    null_from_interval,
)
from service.evaluation.panels.held_out import COPY_RATIO, nearly_equal
from service.evaluation.panels.parts import JSON, MetricPart, random_generator
from service.evaluation.results import Metric, Panel
from service.evaluation.statistics.copies import copy_ratios, copy_threshold, estimate_copy_rate, nearest_auc
from service.evaluation.statistics.hashes import difference_hashes, near_matches
from service.evaluation.statistics.intervals import Estimate, clopper_pearson_interval, difference_of_means
from service.evaluation.statistics.rows import Bools, Float64s
from service.pixel_products import exact_keys

__all__ = ["FEWEST_SAMPLES", "METRICS", "PARTS", "build_metrics"]

FEWEST_SAMPLES = 50
METRICS = (
    "copy_rate", "copy_rate_features", "exact_copies", "copy_rate_strict", "near_copies", "nearest_auc",
    "nearest_auc_features", "train_test_gap",
)  # fmt: skip
"""Names, in the order of the report."""

SHARE, STRICT_SHARE = 0.01, 0.001
"""Share of held-out rows below the threshold."""
COPY_TOLERANCE = 0.02
"""Two samples in a hundred that are nearer to a training row than real rows are."""
EXACT_TOLERANCE = 0.001
AUC_TOLERANCE = 0.05
GAP_TOLERANCE = 0.1
"""Standard deviations of log p over held-out rows."""

_LEAST_THRESHOLD = {"pixels": COPY_RATIO, "features": 0.0}  # few features may be alike by chance
_HASH_BITS = 2  # in which difference hashes of near copies differ at most


def _measure_copies(space: str, evidence: Evidence) -> JSON:
    nearest = evidence.nearest.get(space)
    if nearest is None:
        raise KeyError(f"the evidence has no nearest training rows in {space}")
    ratios, real = copy_ratios(nearest.sample_distances), copy_ratios(nearest.held_out_distances)
    order = random_generator(evidence.seed, "halves").permutation(len(real))
    calibrating, others = order[: len(real) // 2], order[len(real) // 2 :]
    sample_nearest, real_nearest = nearest.sample_distances[:, 0], nearest.held_out_distances[:, 0]
    return {
        "rate": _copy_rates(ratios, real[calibrating], real[others], SHARE, _LEAST_THRESHOLD[space]),
        "strict": _copy_rates(ratios, real[calibrating], real[others], STRICT_SHARE, _LEAST_THRESHOLD[space]),
        "auc": {
            "samples": estimate_or_note(lambda: nearest_auc(sample_nearest, real_nearest)),
            "real": estimate_or_note(lambda: nearest_auc(real_nearest[others], real_nearest[calibrating])),
        },
    }


def _copy_rates(ratios: Float64s, calibrating: Float64s, others: Float64s, share: float, least: float) -> JSON:
    """Estimate the copy rate of samples and of real rows at one threshold; with few rows the share is that of one.

    A threshold of at most `least` is the ratio of a copy: samples that are copies would not be below it.
    """
    known = max(1, int(np.count_nonzero(~np.isnan(calibrating))))
    share = min(0.5, max(share, 1 / known))
    try:
        threshold = copy_threshold(calibrating, share)
    except ValueError as error:
        note = missing(str(error))
        return {"samples": note, "real": note, "share": share, "threshold": None}
    if threshold <= least:
        note = not_measurable(
            f"More than {share:.3g} of the held-out rows are like copies of training rows: the nearest one is only "
            f"{threshold:.2g} times as far as the next ones, so copies among samples cannot be told from them; "
            "remove these rows from the held-out split, or name another one"
        )
        return {"samples": note, "real": note, "share": share, "threshold": threshold}
    return {
        "samples": estimate_or_note(lambda: estimate_copy_rate(ratios, threshold)),
        "real": estimate_or_note(lambda: estimate_copy_rate(others, threshold)),
        "share": share,
        "threshold": threshold,
    }


def _measure_hashes(evidence: Evidence) -> JSON:
    training = evidence.training.images
    exact, near = exact_keys(training), difference_hashes(training)

    def shares(matches: Callable[[NDArray[np.uint8]], Bools]) -> JSON:
        sides = {"samples": evidence.samples.images, "real": evidence.held_out.images}
        return {side: _estimate_share(matches(images)) for side, images in sides.items()}

    return {
        "exact": shares(lambda images: np.isin(exact_keys(images), exact)),
        "near": shares(lambda images: near_matches(difference_hashes(images), near, _HASH_BITS)),
    }


def _estimate_share(hits: Bools) -> JSON:
    count = int(np.count_nonzero(hits))
    return estimate_or_note(lambda: Estimate(count / max(1, len(hits)), clopper_pearson_interval(count, len(hits))))


def _measure_gap(evidence: Evidence) -> JSON:
    scores = evidence.log_likelihoods
    if scores is None:
        return None
    held_out = scores.held_out
    return {
        "samples": estimate_or_note(lambda: difference_of_means(scores.training, held_out)),
        "real": estimate_or_note(lambda: _no_difference(held_out)),
        "deviation": float(held_out.std()) if len(held_out) else 0.0,
    }


def _no_difference(values: Float64s) -> Estimate:
    """Estimate how far the means of two halves lie apart: 0 expected, with the width of their difference's interval."""
    found = difference_of_means(values[::2], values[1::2])
    low, high = found.interval or (0.0, 0.0)
    return Estimate(0.0, ((low - high) / 2, (high - low) / 2))


_part = partial(MetricPart, panel=Panel.MEMORISATION, stage="looking for copies")

PARTS: tuple[MetricPart, ...] = (
    _part(name="copies.pixels", compute=partial(_measure_copies, "pixels")),
    _part(name="copies.features", compute=partial(_measure_copies, "features")),
    _part(name="hashes", compute=_measure_hashes),
    _part(name="gap", compute=_measure_gap),
)


def build_metrics(outputs: Mapping[str, JSON], evidence: Evidence) -> list[Metric]:
    """Make metrics of the outputs of the parts, those that decide first."""
    pixels, features, hashes = _measurable(outputs, evidence)
    metric = partial(build_metric, panel=Panel.MEMORISATION, samples=len(evidence.samples))

    def copy_rate(name: str, rate: JSON, space: str, *, decides: bool = False) -> Metric:
        return metric(
            name,
            output=rate["samples"],
            null=null_from_interval(rate["real"], len(evidence.held_out) - len(evidence.held_out) // 2),
            better="lower",
            tolerance=COPY_TOLERANCE,
            decides=decides,
            method="share of samples whose nearest training row is nearer, relative to the next "
            f"{NEIGHBOURS - 1}, than that of all but {rate['share']:.3g} of held-out rows; {space}, "
            f"{len(evidence.training)} training rows; threshold from one half of the held-out rows, real from the "
            "other; Clopper-Pearson interval; Carlini et al. 2023",
            note=f"By the choice of the threshold, real rows score about {rate['share']:.3g}",
        )

    def auc(name: str, copies: JSON, space: str) -> Metric:
        return metric(
            name,
            output=copies["auc"]["samples"],
            null=null_from_interval(copies["auc"]["real"], len(evidence.held_out)),
            better="null",
            tolerance=AUC_TOLERANCE,
            method=f"how often a sample is farther from its nearest training row than a held-out row is, {space}; "
            "DeLong interval; Meehan et al. 2020 (as a share, not a Z)",
            note="Below a half, samples are nearer: copies, or typical images. Above, they are farther: poor samples. "
            "It does not distinguish these, so it does not decide",
        )

    def gap(output: JSON, scores: LogLikelihoods) -> Metric:
        return metric(
            "train_test_gap",
            output=output["samples"],
            null=null_from_interval(output["real"], len(scores.held_out) // 2),
            better="lower",
            tolerance=GAP_TOLERANCE * output["deviation"],
            method=f"mean {scores.name} of {len(scores.training)} training rows less that of {len(scores.held_out)} "
            "held-out rows, in nats, by the generator itself; Welch interval; real: half of the held-out rows less the "
            "others, which is 0 but for chance; Yeom et al. 2018",
            note="Above 0, the generator finds rows likelier because it was trained on them: its likelihood reveals "
            "them, whether or not samples copy them. So it does not decide",
        )

    likelihoods = evidence.log_likelihoods
    gaps = [] if likelihoods is None else [gap(outputs["gap"], likelihoods)]
    return [
        copy_rate("copy_rate", pixels["rate"], "pixels", decides=True),
        copy_rate("copy_rate_features", features["rate"], "features", decides=True),
        metric(
            "exact_copies", output=hashes["exact"]["samples"],
            null=null_from_interval(hashes["exact"]["real"], len(evidence.held_out)), better="lower",
            tolerance=EXACT_TOLERANCE, decides=True, limit=0.0,
            method="share of samples equal to a training row, pixel for pixel; Clopper-Pearson interval; real: "
            "held-out rows",
        ),
        copy_rate("copy_rate_strict", pixels["strict"], "pixels"),
        metric(
            "near_copies", output=hashes["near"]["samples"],
            null=null_from_interval(hashes["near"]["real"], len(evidence.held_out)), better="lower",
            tolerance=COPY_TOLERANCE,
            method=f"share of samples whose difference hash of 64 bits differs from a training row's in {_HASH_BITS} "
            "at most; Clopper-Pearson interval; real: held-out rows",
            note="Images of few pixels or simple shapes share hashes without being copies, so it does not decide",
        ),
        auc("nearest_auc", pixels, "pixels"),
        auc("nearest_auc_features", features, "features"),
        *gaps,
    ]  # fmt: skip


def _measurable(outputs: Mapping[str, JSON], evidence: Evidence) -> tuple[JSON, JSON, JSON]:
    """Return the outputs of the parts, without what rests on held-out rows that are nearly copies themselves."""
    pixels, features, hashes = outputs["copies.pixels"], outputs["copies.features"], outputs["hashes"]
    near = nearly_equal(evidence)
    if len(near) > SHARE * len(evidence.held_out):
        unfit = not_measurable(
            f"{len(near):,} of {len(evidence.held_out):,} held-out rows nearly equal a training row, so copies among "
            "samples cannot be told from them; remove them from the held-out split, or name another one"
        )
        none = dict.fromkeys(("samples", "real"), unfit)
        pixels, features = ({name: part | none for name, part in each.items()} for each in (pixels, features))
        return pixels, features, hashes | {"near": none}
    unfit = pixels["rate"]["samples"]
    if not unfit.get("measurable", True):  # the same rows set the threshold in features
        features = features | {"rate": features["rate"] | dict.fromkeys(("samples", "real"), unfit)}
    return pixels, features, hashes
