"""Sliced Wasserstein distances and histograms: closed forms and invalid input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.evaluation.statistics.histogram import compare_histograms
from service.evaluation.statistics.sliced_wasserstein import (
    SlicedReference,
    estimate_sliced_wasserstein,
    sliced_wasserstein,
)

# --- Sliced Wasserstein -----------------------------------------------------------------------------------------------


def rows_of(seed: int, n: int, d: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_the_distance_of_a_set_from_itself_is_0():
    rows = rows_of(1, 40)
    reference = SlicedReference.of(rows, seed=3)
    assert sliced_wasserstein(rows[::-1], reference) == 0
    assert sliced_wasserstein(np.repeat(rows, 3, axis=0), reference) == pytest.approx(0, abs=1e-12)


def test_a_shift_has_its_length_over_the_root_of_the_width():
    rows, d = rows_of(1, 40, 50), 50
    reference = SlicedReference.of(rows, seed=3, projections=2000)
    assert sliced_wasserstein(rows + 2.0, reference) == pytest.approx(2.0, rel=0.05)  # 2√d long, over √d
    assert sliced_wasserstein(rows + 4.0, reference) == pytest.approx(2 * sliced_wasserstein(rows + 2.0, reference))
    assert np.linalg.norm(reference.directions, axis=0) == pytest.approx(np.ones(2000))
    assert reference.directions.shape == (d, 2000)


def test_sets_of_unequal_size_are_compared_by_their_quantiles():
    reference = SlicedReference.of(np.array([[0.0], [1.0], [2.0]]), seed=1, projections=4)
    # Quantile functions of {0, 3} and {0, 1, 2}, in sixths: 0 0 0 3 3 3 and 0 0 1 1 2 2.
    assert sliced_wasserstein(np.array([[0.0], [3.0]]), reference) == pytest.approx(math.sqrt((1 + 4 + 1 + 1) / 6))


def test_bytes_are_scaled_from_0_to_1():
    dark, light = np.zeros((5, 1), dtype=np.uint8), np.full((7, 1), 255, dtype=np.uint8)
    assert sliced_wasserstein(light, SlicedReference.of(dark, seed=1)) == pytest.approx(1)


def test_directions_depend_on_the_seed_and_their_number_alone():
    few, many = (SlicedReference.of(rows_of(1, 5), seed=3, projections=p) for p in (8, 20))
    np.testing.assert_array_equal(few.directions, many.directions[:, :8])
    assert not np.array_equal(few.directions, SlicedReference.of(rows_of(1, 5), seed=4, projections=8).directions)


def test_the_interval_is_the_jackknifes():
    rows, reference = rows_of(1, 4), SlicedReference.of(rows_of(2, 9), seed=3, projections=6)
    estimate = estimate_sliced_wasserstein(rows, reference)
    left_out = np.array([sliced_wasserstein(np.delete(rows, row, 0), reference) for row in range(4)])
    half = 3.182446 * np.sqrt(3 / 4 * np.sum((left_out - left_out.mean()) ** 2))
    assert estimate.value == pytest.approx(sliced_wasserstein(rows, reference))
    assert estimate.interval == pytest.approx((max(0, estimate.value - half), estimate.value + half), rel=1e-6)


def test_a_single_row_has_a_value_and_no_interval():
    estimate = estimate_sliced_wasserstein(rows_of(1, 1), SlicedReference.of(rows_of(2, 9), seed=3))
    assert estimate.value > 0
    assert estimate.interval is None


def test_constant_rows_have_an_interval_of_width_0():
    estimate = estimate_sliced_wasserstein(np.ones((50, 3)), SlicedReference.of(rows_of(2, 9, 3), seed=3))
    assert estimate.interval == pytest.approx((estimate.value, estimate.value))


@pytest.mark.parametrize(
    "rows",
    [np.zeros((3, 9)), np.zeros((3, 10), dtype=np.uint8), np.zeros((0, 10)), np.full((3, 10), np.nan)],
    ids=["width", "kind", "none", "not finite"],
)
def test_rows_of_another_kind_are_refused(rows):
    reference = SlicedReference.of(rows_of(1, 5), seed=3)
    for distance in (sliced_wasserstein, estimate_sliced_wasserstein):
        with pytest.raises(ValueError, match="rows"):
            distance(rows, reference)


# --- Histograms -------------------------------------------------------------------------------------------------------


def test_equal_shares_do_not_differ():
    test = compare_histograms(np.array([10, 20, 30]), np.array([20, 40, 60]))
    assert (test.total_variation.value, test.g, test.p) == pytest.approx((0, 0, 1), abs=1e-12)


def test_equal_histograms_have_an_interval_above_0():
    low, high = compare_histograms(np.array([50, 50]), np.array([50, 50])).total_variation.interval
    assert low == 0
    assert high == pytest.approx(1.959964 / 2 * math.sqrt(2 / 100))


def test_total_variation_is_the_share_that_differs():
    assert compare_histograms(np.array([70, 30]), np.array([50, 50])).total_variation.value == pytest.approx(0.2)
    assert compare_histograms(np.array([5, 0]), np.array([0, 9])).total_variation.value == 1


def test_g_and_p_match_closed_forms():
    # 2 Σ O ln(O/E) of [[30, 70], [50, 50]]: E is [[40, 60], [40, 60]].
    expected = 2 * (30 * math.log(0.75) + 70 * math.log(7 / 6) + 50 * math.log(1.25) + 50 * math.log(5 / 6))
    test = compare_histograms(np.array([30, 70]), np.array([50, 50]))
    assert test.g == pytest.approx(expected)
    assert test.p == pytest.approx(math.erfc(math.sqrt(expected / 2)))  # one degree of freedom


def test_classes_that_are_empty_in_both_are_left_out():
    full = compare_histograms(np.array([30, 70]), np.array([50, 50]))
    assert compare_histograms(np.array([30, 0, 70, 0]), np.array([50, 0, 50, 0])) == full


def test_a_single_class_cannot_differ():
    test = compare_histograms(np.array([30, 0]), np.array([50, 0]))
    assert (test.g, test.p, test.total_variation.value) == (0, 1, 0)


def test_p_is_uniform_for_sets_of_one_distribution():
    rng = np.random.default_rng(4)
    shares = [0.4, 0.3, 0.2, 0.1]
    p = [compare_histograms(rng.multinomial(500, shares), rng.multinomial(300, shares)).p for _ in range(1000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 1000))


@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), ([-1, 2], [1, 2]), ([0.5, 2], [1, 2]), ([0, 0], [1, 2]), ([], [])],
    ids=["classes", "axes", "negative", "fractional", "no counts", "no classes"],
)
def test_invalid_histograms_are_refused(a, b):
    with pytest.raises(ValueError, match=r"histograms|counts"):
        compare_histograms(np.array(a), np.array(b))
