"""Coverage of intervals of nearest-neighbour statistics: how often they contain the expectation.

Samples are drawn repeatedly; real rows, thresholds and held-out rows are fixed, except for the AUC, whose interval is
over both. The expectation of precision, density, recall, coverage and AUC is their mean over all draws; that of N_eff
and of the copy rate is known. In 200 draws an interval of exactly 95 % misses more than 22 once in 5000 times, in 60
draws more than 10 as rarely; about forty intervals are tested. Draws are fixed by their seeds, so tests are
deterministic.

Recall's interval is rather too wide than too narrow; see `Comparison.recall`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from service.evaluation.statistics.birthday import count_collisions, effective_size
from service.evaluation.statistics.copies import copy_ratios, copy_threshold, estimate_copy_rate, nearest_auc
from service.evaluation.statistics.distances import nearest
from service.evaluation.statistics.intervals import Estimate
from service.evaluation.statistics.precision_recall import Manifold, compare

MANIFOLDS = ("precision", "density", "recall", "coverage")
MOST_MISSES = {60: 10, 200: 22}


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def misses(estimates: Sequence[Estimate], truth: float | None = None) -> int:
    """Count intervals that do not contain the truth, or else the mean of the values."""
    expected = np.mean([each.value for each in estimates]) if truth is None else truth
    ends = [each.interval for each in estimates]
    return sum(end is None or not end[0] <= expected <= end[1] for end in ends)


def manifold_misses(draws: int, draw: Callable[[int], np.ndarray], real: np.ndarray) -> dict[str, int]:
    fixed = Manifold.of(real)
    found = [compare(Manifold.of(draw(seed)), fixed) for seed in range(draws)]
    return {name: misses([getattr(each, name) for each in found]) for name in MANIFOLDS}


def too_many(found: dict[str, int], draws: int) -> dict[str, int]:
    return {name: count for name, count in found.items() if count > MOST_MISSES[draws]}


def test_manifold_intervals_contain_the_expectation_in_a_few_draws() -> None:
    assert too_many(manifold_misses(60, lambda seed: normal(150, 8, seed), normal(200, 8, 999)), 60) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "m", "d"), [(500, 500, 2), (500, 500, 16), (300, 600, 16), (600, 300, 64), (300, 600, 64)]
)
def test_manifold_intervals_contain_the_expectation(n: int, m: int, d: int) -> None:
    assert too_many(manifold_misses(200, lambda seed: normal(n, d, seed), normal(m, d, 999)), 200) == {}


@pytest.mark.slow
def test_manifold_intervals_contain_the_expectation_of_a_shrunk_generator() -> None:
    assert too_many(manifold_misses(200, lambda seed: 0.8 * normal(500, 16, seed), normal(500, 16, 999)), 200) == {}


@pytest.mark.slow
def test_precision_density_and_coverage_intervals_contain_the_expectation_of_a_collapsed_generator() -> None:
    kinds = normal(40, 16, 998)

    def draw(seed: int) -> np.ndarray:
        return kinds[np.random.default_rng(seed).integers(0, 40, 500)] + 0.05 * normal(500, 16, seed + 1000)

    found = manifold_misses(200, draw, normal(500, 16, 999))
    assert too_many({name: found[name] for name in MANIFOLDS if name != "recall"}, 200) == {}


def probabilities(kind: str, images: int) -> np.ndarray:
    """Return the probability of each image: equal, decreasing slowly, or one of a tenth."""
    weights = {
        "uniform": np.ones(images),
        "falling": 1 / (20 + np.arange(images)),
        "one common": np.where(np.arange(images) == 0, images / 9, 1.0),
    }[kind]
    return weights / weights.sum()


@pytest.mark.parametrize("images", [50, 2000])
@pytest.mark.parametrize("kind", ["uniform", "falling", "one common"])
def test_effective_size_intervals_contain_the_truth(images: int, kind: str) -> None:
    p, places = probabilities(kind, images), np.arange(images)[:, None] * 1.0
    sizes = [
        effective_size(count_collisions(places[np.random.default_rng(seed).choice(images, 500, p=p)], 0.5))
        for seed in range(200)
    ]
    assert misses(sizes, 1 / np.square(p).sum()) <= MOST_MISSES[200]


def copy_rates(draws: int, n: int, d: int) -> int:
    """Count misses for a generator that copies one sample in thirty from a training row, with little noise."""
    train = normal(800, d, 997)
    threshold = copy_threshold(copy_ratios(nearest(normal(800, d, 996), train, 10)[0]))
    others = copy_ratios(nearest(normal(5000, d, 995), train, 10)[0])  # none of them copied
    truth = 1 / 30 + 29 / 30 * float((others < threshold).mean())
    rates = []
    for seed in range(draws):
        rng, samples = np.random.default_rng(seed), normal(n, d, seed)
        copied = np.flatnonzero(rng.random(n) < 1 / 30)
        samples[copied] = train[rng.integers(0, 800, len(copied))] + 0.001
        rates.append(estimate_copy_rate(copy_ratios(nearest(samples, train, 10)[0]), threshold))
    return misses(rates, truth)


def test_copy_rate_intervals_contain_the_truth_in_a_few_draws() -> None:
    assert copy_rates(60, 200, 16) <= MOST_MISSES[60]


@pytest.mark.slow
def test_copy_rate_intervals_contain_the_truth() -> None:
    assert copy_rates(200, 500, 16) <= MOST_MISSES[200]


@pytest.mark.parametrize(
    ("draws", "scale"),
    [(60, 1.0), pytest.param(200, 1.0, marks=pytest.mark.slow), pytest.param(200, 0.8, marks=pytest.mark.slow)],
)
def test_auc_intervals_contain_the_expectation(draws: int, scale: float) -> None:
    train = normal(300, 8, 994)

    def to_nearest(rows: np.ndarray) -> np.ndarray:
        return nearest(rows, train, 1)[0][:, 0]

    found = [
        nearest_auc(to_nearest(scale * normal(150, 8, seed)), to_nearest(normal(100, 8, seed + 500)))
        for seed in range(draws)
    ]
    assert misses(found) <= MOST_MISSES[draws]
