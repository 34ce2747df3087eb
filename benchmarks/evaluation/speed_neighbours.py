"""Times of nearest-neighbour metrics compared with prdc on the same features, and the growth of their memory.

Both sides compute from features to precision, recall, density and coverage: 10 000 samples, 10 000 real rows, 64
features. Threads are as many as the processor has, unless OPENBLAS_NUM_THREADS and OMP_NUM_THREADS are set; rounds are
interleaved, so that a busy moment affects both. The nearest rows of pictures and of features, which prdc does not
compute, are compared with scikit-learn's brute force for fewer queries, since both times are proportional.

Expected before measuring: at least twice as fast as prdc, which does the same three products, but in addition
partitions two full matrices and compares four times more than any cache contains. Memory: prdc's three matrices of
float32 or float64 are 1.2 to 2.4 GB at 10 000; ours grows like the rows, by 4 times from 5 000 to 20 000, not 16.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.interleaved import SpeedRow, peak_mib, time_interleaved
from benchmarks.evaluation.oracles_neighbours import prdc_of
from service.evaluation.statistics.distances import nearest, prepare
from service.evaluation.statistics.precision_recall import Manifold, compare

__all__ = ["measure", "measure_memory"]

_SEED = 9
_QUERIES = 1000

Rows = NDArray[Any]


def measure(rows: int = 10_000, features: int = 64, training_rows: int = 60_000, rounds: int = 3) -> list[SpeedRow]:
    """Time every comparison, in interleaved rounds.

    Args:
        rows: samples, and real rows.
        features: of a row.
        training_rows: rows that are searched.
        rounds: number of rounds of the medians.
    """
    rng = np.random.default_rng(_SEED)
    samples, real = (_features(rng, rows, features) for _ in range(2))
    train, pictures = _features(rng, training_rows, features), rng.integers(0, 256, (training_rows, 784), np.uint8)
    ready, ready_pictures = prepare(train), prepare(pictures)
    return [
        time_interleaved("precision, recall, density, coverage", "prdc", lambda: _prdc(samples, real),
             lambda: prdc_of(samples, real), rounds),
        time_interleaved(f"10 nearest of {training_rows} rows, {_QUERIES} queries, {features} features", "scikit-learn",
             lambda: nearest(samples[:_QUERIES], ready, 10), lambda: _brute_force(samples[:_QUERIES], train), rounds),
        time_interleaved(f"10 nearest of {training_rows} pictures, {_QUERIES} queries, 784 pixels", "scikit-learn",
             lambda: nearest(pictures[:_QUERIES], ready_pictures, 10),
             lambda: _brute_force(pictures[:_QUERIES], pictures), rounds),
    ]  # fmt: skip


def measure_memory(counts: tuple[int, ...] = (5_000, 10_000, 20_000), features: int = 64) -> dict[int, float]:
    """Measure NumPy's peak memory in MiB in addition to the features, by the number of samples and real rows."""
    rng = np.random.default_rng(_SEED)
    found = {}
    for count in counts:
        samples, real = (_features(rng, count, features) for _ in range(2))
        found[count] = peak_mib(lambda: _prdc(samples, real))  # noqa: B023 (called at once)
    return found


def _features(rng: np.random.Generator, rows: int, width: int) -> Rows:
    return rng.normal(size=(rows, width)).astype(np.float32)


def _prdc(samples: Rows, real: Rows) -> tuple[float, ...]:
    found = compare(Manifold.of(samples), Manifold.of(real))
    return found.precision.value, found.recall.value, found.density.value, found.coverage.value


def _brute_force(queries: Rows, rows: Rows) -> object:
    from sklearn.neighbors import NearestNeighbors

    rows = rows.astype(np.float32)  # uint8 would be multiplied in float64
    return NearestNeighbors(n_neighbors=10, algorithm="brute").fit(rows).kneighbors(queries.astype(np.float32))


if __name__ == "__main__":
    for row in measure():
        sys.stdout.write(f"{row}\n")
    sys.stdout.write(f"MiB by rows: {measure_memory()}\n")
