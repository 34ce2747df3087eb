"""Statistics compared with other libraries on the same arrays: moments, kernels, probabilities, histograms.

Every row passes small arrays to both implementations and keeps both numbers. Where the default of a library differs, it
is configured alike: KID from all rows instead of random subsets, the inception score from one split instead of ten.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment, linprog

from fount.intervals import wilson_interval
from service.evaluation.statistics.fid import Moments, frechet_distance
from service.evaluation.statistics.histogram import compare_histograms
from service.evaluation.statistics.inception_score import ProbabilitySums, inception_score
from service.evaluation.statistics.intervals import clopper_pearson_interval, poisson_interval, rate_ratio_interval
from service.evaluation.statistics.kid import KernelSums, kid
from service.evaluation.statistics.sliced_wasserstein import SlicedReference, sliced_wasserstein
from service.evaluation.statistics.vendi_score import SecondMoments, vendi_score

__all__ = ["OracleRow", "metric_value", "moment_rows", "relative_difference"]

Rows = NDArray[Any]


@dataclass(frozen=True)
class OracleRow:
    """One number, computed by both implementations.

    Attributes:
        metric: its name.
        library: the other implementation.
        theirs: number of the library.
        ours: number of this package.
        difference: relative, |ours - theirs| / |theirs|.
    """

    metric: str
    library: str
    theirs: float
    ours: float
    difference: float


def relative_difference(ours: float, theirs: float) -> float:
    """Compute |ours − theirs| / |theirs|; 0 when both are equal, infinite when only theirs is 0."""
    if ours == theirs:
        return 0.0
    return abs(ours - theirs) / abs(theirs) if theirs else float("inf")


def moment_rows() -> list[OracleRow]:
    """Compare every statistic of this module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries: buffers, one split, deprecated namespaces
        pairs = [pair for part in (_distances, _scores, _slices, _tables) for pair in part()]
    return [OracleRow(name, library, theirs, ours, relative_difference(ours, theirs))
            for name, library, theirs, ours in pairs]  # fmt: skip


Pair = tuple[str, str, float, float]


def _features(seed: int, n: int, d: int) -> Rows:
    """Draw (n, d) float64: correlated, skewed and not centred, like features of a classifier."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(d, d)) / np.sqrt(d)
    return np.maximum(0, rng.normal(size=(n, d)) @ mixing + 0.5) + 0.02 * seed


def _distances() -> list[Pair]:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = _features(1, 700, 24), _features(2, 500, 24)
    few, wide_a, wide_b = _features(3, 20, 24), _features(1, 300, 200), _features(2, 300, 200)
    even = a[:500]
    small = {"subsets": 1, "subset_size": 500}
    wide = {"subsets": 1, "subset_size": 300}
    return [
        ("FID, 700 and 500 rows, d = 24", "torchmetrics", metric_value(FrechetInceptionDistance, a, b), _fid(a, b)),
        ("FID, 20 rows, d = 24", "torchmetrics", metric_value(FrechetInceptionDistance, few, b), _fid(few, b)),
        ("FID, 700 and 500 rows, d = 24", "scipy (sqrtm)", _fid_by_sqrtm(a, b), _fid(a, b)),
        ("KID, 500 rows, d = 24 (sums)", "torchmetrics", metric_value(KernelInceptionDistance, even, b, **small),
         kid(KernelSums.of(even), KernelSums.of(b))),
        ("KID, 300 rows, d = 200 (pairs)", "torchmetrics",
         metric_value(KernelInceptionDistance, wide_a, wide_b, **wide),
         kid(KernelSums.of(wide_a), KernelSums.of(wide_b))),
    ]  # fmt: skip


def _fid(a: Rows, b: Rows) -> float:
    return frechet_distance(Moments.of(a), Moments.of(b))


def _fid_by_sqrtm(a: Rows, b: Rows) -> float:
    s, t = np.cov(a.T), np.cov(b.T)
    root = sqrtm(s @ t).real
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s + t - 2 * root))


def _identity(width: int) -> Any:
    """Create an extractor that returns its input."""
    import torch

    extractor = torch.nn.Identity()
    extractor.num_features = width  # type: ignore[assignment]
    return extractor


def metric_value(metric: Callable[..., Any], a: Rows, b: Rows, **options: int) -> float:
    """Compute a torchmetrics distance of two sets of features; in float64 if they are."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its buffers
        theirs = metric(feature=_identity(a.shape[1]), **options)
    if a.dtype == np.float64:
        theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(a), real=False)
    theirs.update(torch.from_numpy(b), real=True)
    value = theirs.compute()
    return float(value[0] if isinstance(value, tuple) else value)


def _scores() -> list[Pair]:
    import torch
    from torchmetrics.image.inception import InceptionScore
    from vendi_score import vendi

    logits = np.random.default_rng(4).normal(size=(600, 10)) * 3
    theirs = InceptionScore(feature=_identity(10), splits=1).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(logits))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    x = _features(5, 300, 24)
    state = SecondMoments.of(x)
    return [
        ("inception score, one split", "torchmetrics", float(theirs.compute()[0]),
         inception_score(ProbabilitySums.of(probabilities))),
        ("Vendi, order 1", "vendi-score (score_X)", float(vendi.score_X(x)), vendi_score(state)),
        ("Vendi, order 1", "vendi-score (score_dual)", float(vendi.score_dual(x)), vendi_score(state)),
        ("Vendi, order 2", "vendi-score (score_dual)", float(vendi.score_dual(x, q=2)), vendi_score(state, 2)),
        ("Vendi, order ∞", "vendi-score (score_dual)", float(vendi.score_dual(x, q="inf")),
         vendi_score(state, np.inf)),
    ]  # fmt: skip


def _slices() -> list[Pair]:
    a, b = _features(6, 40, 12), _features(7, 40, 12)
    reference = SlicedReference.of(b, seed=3, projections=3)
    fewer = a[:15]
    return [
        ("sliced Wasserstein, 40 rows", "scipy (linear_sum_assignment)", _by_assignment(a, b, reference.directions),
         sliced_wasserstein(a, reference)),
        ("sliced Wasserstein, 15 and 40 rows", "scipy (linprog)", _by_programme(fewer, b, reference.directions),
         sliced_wasserstein(fewer, reference)),
    ]  # fmt: skip


def _costs(a: Rows, b: Rows, directions: Rows) -> list[Rows]:
    return [((a @ u)[:, None] - (b @ u)[None, :]) ** 2 for u in directions.T]


def _by_assignment(a: Rows, b: Rows, directions: Rows) -> float:
    """Compute transport as the cheapest pairing of rows."""
    return float(np.sqrt(np.mean([c[linear_sum_assignment(c)].mean() for c in _costs(a, b, directions)])))


def _by_programme(a: Rows, b: Rows, directions: Rows) -> float:
    """Compute transport as a linear programme over plans with the given marginals."""
    n, m = len(a), len(b)
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    costs = [linprog(c.ravel(), A_eq=marginals, b_eq=masses).fun for c in _costs(a, b, directions)]
    return float(np.sqrt(np.mean(costs)))


def _tables() -> list[Pair]:
    a, b = np.array([52, 48, 0, 61, 39, 0]), np.array([105, 90, 3, 98, 104, 0])
    test = compare_histograms(a, b)
    g = stats.chi2_contingency(np.stack([a, b])[:, :5], correction=False, lambda_="log-likelihood")
    shares = stats.binomtest(7, 300)
    ours = clopper_pearson_interval(7, 300)
    scores, exact = shares.proportion_ci(method="wilson"), shares.proportion_ci(method="exact")
    ratio = stats.binomtest(7, 26).proportion_ci(method="exact").high
    return [
        ("G of two histograms", "scipy (chi2_contingency)", float(g.statistic), test.g),
        ("p of two histograms", "scipy (chi2_contingency)", float(g.pvalue), test.p),
        ("Wilson, 7 of 300, lower", "scipy (binomtest)", float(scores.low), wilson_interval(7, 300)[0]),
        ("Wilson, 7 of 300, upper", "scipy (binomtest)", float(scores.high), wilson_interval(7, 300)[1]),
        ("Clopper-Pearson, 7 of 300, lower", "scipy (binomtest)", float(exact.low), ours[0]),
        ("Clopper-Pearson, 7 of 300, upper", "scipy (binomtest)", float(exact.high), ours[1]),
        ("Poisson mean, count 7, lower", "scipy (chi2)", float(stats.chi2.ppf(0.025, 14) / 2), poisson_interval(7)[0]),
        ("Poisson mean, count 7, upper", "scipy (chi2)", float(stats.chi2.ppf(0.975, 16) / 2), poisson_interval(7)[1]),
        ("ratio of rates, 7 in 2 and 19 in 3, upper", "scipy (binomtest)", float(ratio / (1 - ratio) * 3 / 2),
         rate_ratio_interval(7, 2, 19, 3)[1]),
    ]  # fmt: skip
