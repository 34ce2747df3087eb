"""Moments, kernels and probabilities agree with torchmetrics, vendi-score and scipy on the same arrays.

The arrays and the calls of each library are in `benchmarks/evaluation/oracles.py`. By default torchmetrics computes KID
over random subsets and the inception score over ten splits; here it uses one subset of all rows, and one split.
vendi-score's `score_X` ignores its order, so orders other than 1 are computed by `score_dual`. All is in float64, and
agrees to 1e-6 of the value; most to 1e-12. FID of fewer rows than features agrees to 1e-8 only: the roots of
torchmetrics' eigenvalues that should be 0 are roots of rounding errors.
"""

from __future__ import annotations

import pytest

from benchmarks.evaluation.oracles import OracleRow, moment_rows, relative_difference

METRICS = ("FID", "KID", "inception score", "Vendi", "sliced Wasserstein", "G of", "p of", "Wilson", "Clopper-Pearson",
           "Poisson", "ratio of rates")  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[OracleRow]:
    return moment_rows()


@pytest.mark.parametrize("metric", METRICS)
def test_it_agrees_with_other_libraries(rows: list[OracleRow], metric: str):
    ours = [row for row in rows if row.metric.startswith(metric)]
    assert ours
    assert [row for row in ours if not row.difference <= 1e-6] == []


def test_every_oracle_is_compared(rows: list[OracleRow]):
    assert [row.metric for row in rows if not row.metric.startswith(METRICS)] == []


def test_differences_are_relative_to_the_other_library():
    assert relative_difference(1.1, 1.0) == pytest.approx(0.1)
    assert relative_difference(0.0, 0.0) == 0
    assert relative_difference(1e-9, 0.0) == float("inf")
