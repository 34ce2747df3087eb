"""Copy statistics: how close samples are to training rows, compared with held-out rows.

Distances to the nearest training rows enter (`distances.nearest`), two statistics leave, since no single one separates
copying from shrinkage. The copy rate depends on whether one training row is much nearer than the next ones: it stays
low when a generator keeps to the middle of the data. The AUC depends on whether samples are nearer than held-out rows
at all: it reacts to both, and hardly to a few copies.

Sources: Carlini et al., "Extracting training data from diffusion models", USENIX Security 2023, section 5 (the ratio);
Meehan et al., "A non-parametric test to detect data-copying in generative models", AISTATS 2020 (the shift); DeLong,
DeLong and Clarke-Pearson, Biometrics 44, 1988 (its interval). The threshold from held-out rows is this project's own.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata

from service.evaluation.statistics.intervals import TAIL, Z_95, Estimate, Interval, clopper_pearson_interval
from service.evaluation.statistics.rows import Float64s

__all__ = ["copy_ratios", "copy_threshold", "estimate_copy_rate", "nearest_auc"]


FEWEST_DISTANCES = 3
"""Distances a ratio needs: a mean of one further distance would be too noisy."""


def copy_ratios(distances: Float64s) -> Float64s:
    """Divide the nearest distance by the mean of the next ones: about 1 for a typical row, near 0 for a copy.

    Args:
        distances: (n, k) Euclidean, ascending; infinity where there are fewer than k rows.

    Returns:
        (n,) d1 / mean(d2 ... dk) of the finite ones; 0 where all of them are 0; NaN where there are fewer than 3.
    """
    finite = np.isfinite(distances)
    total = np.zeros(len(distances))
    for column in range(1, distances.shape[1]):  # a fixed order: np.sum's depends on the processor
        total += np.where(finite[:, column], distances[:, column], 0.0)
    count = finite.sum(axis=1)
    mean = total / np.maximum(count - 1, 1)
    ratios = np.divide(distances[:, 0], mean, out=np.zeros(len(mean)), where=mean > 0)
    return np.asarray(np.where(count >= FEWEST_DISTANCES, ratios, np.nan))


def copy_threshold(held_out_ratios: Float64s, share: float = 0.01) -> float:
    """Return the ratio below which a share of the held-out rows lies.

    Args:
        held_out_ratios: (m,); NaN ones are left out.
        share: that share, 0 to 0.5, of one row at least.
    """
    ratios = np.sort(held_out_ratios[~np.isnan(held_out_ratios)])
    if len(ratios) * share < 1:
        raise ValueError(
            f"a threshold for {share:g} needs {math.ceil(1 / share)} held-out rows, there are {len(ratios)}"
        )
    return float(ratios[int(share * len(ratios))])


def estimate_copy_rate(ratios: Float64s, threshold: float) -> Estimate:
    """Estimate the share of samples whose ratio is below a fixed threshold, with its Clopper-Pearson interval.

    Args:
        ratios: (n,); NaN ones are left out, and one at least is not.
        threshold: of `copy_threshold`.
    """
    known = ratios[~np.isnan(ratios)]
    if not len(known):
        raise ValueError(f"none of {len(ratios)} samples has a ratio: fewer than {FEWEST_DISTANCES} training rows")
    hits = int(np.count_nonzero(known < threshold))
    return Estimate(hits / len(known), clopper_pearson_interval(hits, len(known)))


def nearest_auc(sample_nearest: Float64s, held_out_nearest: Float64s) -> Estimate:
    """Estimate the probability that a sample is farther from the training rows than a held-out row, ties half.

    Args:
        sample_nearest: (n,) distances to the nearest training row; n at least 2.
        held_out_nearest: (m,) the same of held-out rows; m at least 2.

    Returns:
        0.5: as far as held-out rows; below: nearer, as copies or shrinkage are; above: farther. The interval is over
        draws of both, samples and held-out rows.

    Source: DeLong et al. 1988, equations 2 and 5, on ranks; where the two separate completely, the exact bound of a
    share.
    """
    n, m = len(sample_nearest), len(held_out_nearest)
    if min(n, m) < 2:
        raise ValueError(f"an AUC needs two samples and two held-out rows, there are {n} and {m}")
    both = np.concatenate([sample_nearest, held_out_nearest])
    wrong = int(np.count_nonzero(~np.isfinite(both)))
    if wrong:
        raise ValueError(f"{wrong} of {len(both)} distances are not finite")
    ranks = rankdata(both)
    nearer = (ranks[:n] - rankdata(sample_nearest)) / m  # share of held-out rows that are nearer than each sample
    farther = 1.0 - (ranks[n:] - rankdata(held_out_nearest)) / n  # share of samples that are farther than each row
    value = float(nearer.mean())
    return Estimate(value, _delong_interval(value, nearer, farther))


def _delong_interval(value: float, nearer: Float64s, farther: Float64s) -> Interval:
    variance = float(nearer.var(ddof=1)) / len(nearer) + float(farther.var(ddof=1)) / len(farther)
    unobserved = 1.0 - TAIL ** (1 / min(len(nearer), len(farther)))  # upper bound of a share that was never observed
    half = Z_95 * math.sqrt(variance) if variance else unobserved
    return max(0.0, value - half), min(1.0, value + half)
