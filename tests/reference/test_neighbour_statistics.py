"""Nearest-neighbour statistics agree with prdc, scikit-learn and scipy.

They count the same comparisons: equal except for the last bits of a quotient (1e-12). scikit-learn's trees compute
distances directly in float64, as `distances` does for candidates.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from benchmarks.evaluation.oracles import OracleRow
from benchmarks.evaluation.oracles_neighbours import neighbour_rows, prdc_of
from service.evaluation.statistics.distances import nearest
from service.evaluation.statistics.precision_recall import Manifold, compare


@functools.cache
def rows() -> dict[str, OracleRow]:
    return {f"{row.metric} ({row.library})": row for row in neighbour_rows()}


def test_every_number_agrees_with_the_other_library() -> None:
    assert {name: (row.theirs, row.ours) for name, row in rows().items() if row.difference > 1e-12} == {}


def test_every_oracle_is_compared() -> None:
    assert len(rows()) == 19


def digits() -> np.ndarray:
    from sklearn.datasets import load_digits

    return load_digits().data


@pytest.mark.slow
def test_digits_agree_with_prdc() -> None:
    images = digits()
    samples, real = images[:900], images[900:]
    comparison = compare(Manifold.of(samples), Manifold.of(real))
    ours = {name: getattr(comparison, name).value for name in ("precision", "recall", "density", "coverage")}
    assert ours == pytest.approx(prdc_of(samples, real), rel=1e-12)


def test_distances_of_images_are_those_of_their_pixels() -> None:
    images = digits().astype(np.uint8)
    distances, found = nearest(images[:60], images, 10)
    whole = images.astype(np.int64)
    squares = np.square(whole[:60, None] - whole[None]).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")[:, :10]
    assert np.array_equal(found, order)
    assert np.array_equal(distances, np.sqrt(np.take_along_axis(squares, order, axis=1)))
