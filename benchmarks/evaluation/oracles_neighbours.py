"""Statistics of neighbours compared with other libraries on the same arrays.

prdc uses the full matrix of distances, scikit-learn brute force or trees, scipy exact tests: none of them shares code
with Fount. Rows are float32 like features of a worker, and far from the origin, where distances computed by products
are least precise.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.evaluation.oracles import OracleRow, relative_difference
from service.evaluation.statistics.birthday import count_collisions, effective_size
from service.evaluation.statistics.copies import copy_ratios, estimate_copy_rate, nearest_auc
from service.evaluation.statistics.distances import nearest
from service.evaluation.statistics.precision_recall import Manifold, compare

__all__ = ["neighbour_rows", "prdc_of"]

Rows = NDArray[Any]
Pair = tuple[str, str, float, float]

K = 5


def neighbour_rows() -> list[OracleRow]:
    """Compare every statistic of this module."""
    pairs = [*_manifolds(1200, 900, 16), *_manifolds(800, 1300, 64), *_distances(), *_birthdays(), *_memorisation()]
    return [OracleRow(name, library, theirs, ours, relative_difference(ours, theirs))
            for name, library, theirs, ours in pairs]  # fmt: skip


def prdc_of(samples: Rows, real: Rows) -> dict[str, float]:
    """Compute precision, recall, density and coverage with prdc, without its output."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {name: float(value) for name, value in compute_prdc(real, samples, nearest_k=K).items()}


def _rows(seed: int, n: int, d: int, scale: float = 1.0) -> Rows:
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale + 10).astype(np.float32)


def _manifolds(n: int, m: int, d: int) -> list[Pair]:
    samples, real = _rows(1, n, d, 0.95), _rows(2, m, d)
    comparison = compare(Manifold.of(samples, K), Manifold.of(real, K))
    theirs = prdc_of(samples, real)
    return [
        (f"{name}, {n} samples and {m} rows, d = {d}", "prdc", theirs[name], getattr(comparison, name).value)
        for name in ("precision", "recall", "density", "coverage")
    ]


def _distances() -> list[Pair]:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (1000, 784), dtype=np.uint8)
    found = []
    for name, rows in (("pixels, 784", pictures), ("features, d = 16", _rows(4, 1000, 16))):
        ours, ours_rows = nearest(rows[:100], rows, 10)
        theirs, theirs_rows = NearestNeighbors(n_neighbors=10, algorithm="kd_tree").fit(rows).kneighbors(rows[:100])
        found.append((f"sum of 10 nearest distances, {name}", "scikit-learn", float(theirs.sum()), float(ours.sum())))
        agreed = float((np.sort(theirs_rows) == np.sort(ours_rows)).mean())
        found.append((f"share of neighbours that are the same, {name}", "scikit-learn", 1.0, agreed))
    return found


def _birthdays() -> list[Pair]:
    from sklearn.neighbors import radius_neighbors_graph

    rows = _rows(5, 2000, 6)
    near = (radius_neighbors_graph(rows.astype(np.float64), 0.5).nnz) // 2
    counted = count_collisions(rows, 0.5, enough=10**9)
    low, high = effective_size(replace(counted, dispersion=1.0)).interval or (0.0, 0.0)  # of independent pairs
    pairs = 2000 * 1999 / 2
    return [
        ("pairs within 0.5, 2000 rows, d = 6", "scikit-learn (radius graph)", float(near), float(counted.count)),
        ("N_eff, lower", "scipy (chi2)", pairs / float(stats.chi2.ppf(0.975, 2 * near + 2) / 2), low),
        ("N_eff, upper", "scipy (chi2)", pairs / float(stats.chi2.ppf(0.025, 2 * near) / 2), high),
    ]


def _memorisation() -> list[Pair]:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(6)
    samples, held_out = rng.integers(0, 40, 500).astype(float), rng.integers(2, 44, 700).astype(float)  # with ties
    theirs = roc_auc_score(np.repeat([1, 0], [500, 700]), np.concatenate([samples, held_out]))
    distances = np.sort(rng.random((400, 10)) + 0.5, axis=1)
    rate = estimate_copy_rate(copy_ratios(distances), 0.6)
    hits = int((distances[:, 0] / distances[:, 1:].mean(axis=1) < 0.6).sum())
    exact = stats.binomtest(hits, 400).proportion_ci(method="exact")
    low, high = rate.interval or (0.0, 0.0)
    return [
        ("AUC of nearest distances, with ties", "scikit-learn", float(theirs), nearest_auc(samples, held_out).value),
        ("copy rate", "numpy (by definition)", hits / 400, rate.value),
        ("copy rate, lower", "scipy (binomtest)", float(exact.low), low),
        ("copy rate, upper", "scipy (binomtest)", float(exact.high), high),
    ]
