"""Intervals: closed forms, bounds, and invalid input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from fount.intervals import wilson_interval
from service.evaluation.statistics.fid import Moments
from service.evaluation.statistics.intervals import (
    BLOCKS,
    Estimate,
    block_rows,
    clip,
    clopper_pearson_interval,
    difference_of_means,
    estimate_from_blocks,
    jackknife_interval,
    poisson_interval,
    prediction_range,
    rate_ratio_interval,
)

T_19 = 2.093024  # the 97.5 % point of t with 19 degrees of freedom


def test_wilson_is_symmetric_and_matches_a_known_value_at_a_half():
    assert wilson_interval(500, 1000) == pytest.approx((0.469070, 0.530930), abs=1e-6)
    low, high = wilson_interval(7, 300)
    assert wilson_interval(293, 300) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("share", [wilson_interval, clopper_pearson_interval])
def test_a_share_of_none_or_all_has_a_bound_of_0_or_1(share):
    assert share(0, 50)[0] == 0.0
    assert share(50, 50)[1] == 1.0
    assert 0 < share(0, 50)[1] < 0.1


def test_clopper_pearson_of_no_hits_is_closed_form():
    assert clopper_pearson_interval(0, 50)[1] == pytest.approx(1 - 0.025 ** (1 / 50))


def test_poisson_matches_closed_forms():
    assert poisson_interval(0) == pytest.approx((0, -math.log(0.025)))
    assert poisson_interval(10) == pytest.approx((4.795389, 18.390356), abs=1e-6)


@pytest.mark.parametrize("share", [wilson_interval, clopper_pearson_interval])
@pytest.mark.parametrize(("hits", "of"), [(-1, 5), (6, 5), (0, 0)])
def test_an_invalid_share_is_refused(share, hits, of):
    with pytest.raises(ValueError, match=f"{hits} of {of}"):
        share(hits, of)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        poisson_interval(-1)


def test_rate_ratio_inverts_when_its_sides_are_exchanged():
    low, high = rate_ratio_interval(7, 2.0, 19, 3.0)
    assert rate_ratio_interval(19, 3.0, 7, 2.0) == pytest.approx((1 / high, 1 / low))
    assert low < (7 / 2) / (19 / 3) < high


def test_rate_ratio_scales_with_exposures():
    assert np.array(rate_ratio_interval(7, 20.0, 19, 3.0)) * 10 == pytest.approx(rate_ratio_interval(7, 2.0, 19, 3.0))


def test_rate_ratio_is_unbounded_where_a_count_is_zero():
    assert rate_ratio_interval(0, 1, 5, 1)[0] == 0
    assert rate_ratio_interval(5, 1, 0, 1)[1] == math.inf
    assert rate_ratio_interval(0, 1, 0, 1) == (0.0, math.inf)


@pytest.mark.parametrize("wrong", [(-1, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, math.nan)])
def test_rate_ratio_refuses_invalid_counts_and_exposures(wrong):
    with pytest.raises(ValueError, match="exposures are positive"):
        rate_ratio_interval(*wrong)


def test_prediction_range_is_wider_than_that_of_the_mean():
    mean, (low, high) = prediction_range(np.arange(20.0))
    spread = math.sqrt(35)  # of 0..19, n - 1
    assert mean == 9.5
    assert (low, high) == pytest.approx((9.5 - T_19 * spread * math.sqrt(1.05), 9.5 + T_19 * spread * math.sqrt(1.05)))


def test_prediction_range_holds_95_percent_of_further_values():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(2000, 20))
    inside = [low <= new <= high for row, new in zip(draws, rng.normal(size=2000), strict=True)
              for low, high in [prediction_range(row)[1]]]  # fmt: skip
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 2000))


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan]])
def test_prediction_range_refuses_fewer_than_two_finite_values(values):
    with pytest.raises(ValueError, match="at least two values"):
        prediction_range(np.array(values))


def test_the_jackknife_of_a_mean_is_its_t_interval_over_blocks():
    rows = np.random.default_rng(1).normal(size=(BLOCKS, 50))
    left_out = (rows.sum() - rows.sum(axis=1)) / (rows.size - 50)
    error = rows.mean(axis=1).std(ddof=1) / math.sqrt(BLOCKS)
    assert jackknife_interval(rows.mean(), left_out) == pytest.approx(
        (rows.mean() - T_19 * error, rows.mean() + T_19 * error)
    )


def test_the_jackknife_weights_blocks_of_unequal_size():
    sizes = np.array([30, 50, 20, 60, 40])
    rows = np.random.default_rng(1).normal(size=200)
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    left_out = np.array([(rows.sum() - part.sum()) / (200 - len(part)) for part in parts])
    means = np.array([part.mean() for part in parts])
    error = math.sqrt(np.mean((means - rows.mean()) ** 2 * sizes / (200 - sizes)))
    assert jackknife_interval(rows.mean(), left_out, sizes)[1] == pytest.approx(rows.mean() + 2.776445 * error)
    assert jackknife_interval(rows.mean(), left_out, sizes) != jackknife_interval(rows.mean(), left_out)


def test_the_jackknife_does_not_depend_on_the_scale_of_sizes():
    left_out = np.array([1.0, 2.0, 4.0])
    assert jackknife_interval(2.0, left_out, np.array([7, 7, 7])) == pytest.approx(jackknife_interval(2.0, left_out))


@pytest.mark.parametrize(("value", "left_out"), [(1.0, [1.0]), (math.nan, [1.0, 2.0]), (1.0, [1.0, math.inf])])
def test_the_jackknife_refuses_a_single_block_and_values_that_are_not_finite(value, left_out):
    with pytest.raises(ValueError, match="at least two blocks"):
        jackknife_interval(value, np.array(left_out))


def test_blocks_are_of_nearly_equal_size():
    assert [len(block) for block in block_rows(10, 4)] == [2, 3, 2, 3]
    assert [len(block) for block in block_rows(40)] == [2] * BLOCKS
    assert block_rows(0, 3) == []


@pytest.mark.parametrize("n", [1, 7, 20, 1234])
def test_every_row_is_in_one_block(n):
    blocks = block_rows(n)
    assert len(blocks) == min(n, BLOCKS)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(n))
    assert all(map(np.array_equal, blocks, block_rows(n)))


def test_sorted_rows_do_not_widen_the_interval():
    rows = np.random.default_rng(2).normal(size=(1000, 1))
    statistic = lambda state: float(state.mean[0])  # noqa: E731
    spread = []
    for given in (rows, np.sort(rows, axis=0)):
        low, high = estimate_from_blocks([Moments.of(given[r]) for r in block_rows(1000)], statistic, least=1).interval
        spread.append(high - low)
    assert spread[1] == pytest.approx(spread[0], rel=0.5)


def test_leaving_out_a_block_merges_the_others():
    rows = np.random.default_rng(2).normal(size=(9, 2))
    states = [Moments.of(part) for part in np.split(rows, [2, 5])]
    seen = []
    estimate_from_blocks(states, lambda state: seen.append(state.mean.copy()) or 0.0, least=2)
    expected = [rows, rows[2:], np.delete(rows, [2, 3, 4], 0), rows[:5]]
    np.testing.assert_allclose(seen, [part.mean(axis=0) for part in expected])


def test_too_few_rows_have_a_value_and_no_interval():
    states = [Moments.of(np.ones((1, 2))), Moments.of(np.zeros((1, 2)))]
    assert estimate_from_blocks(states, lambda state: state.mean[0], least=2) == Estimate(0.5)
    assert estimate_from_blocks(states[:1], lambda state: state.mean[0], least=1) == Estimate(1.0)


def test_an_interval_is_cut_to_where_values_can_lie():
    assert clip(Estimate(0.5, (-1.0, 2.0)), 0) == Estimate(0.5, (0, 2.0))
    assert clip(Estimate(0.5, (-1.0, 2.0)), 0, 1) == Estimate(0.5, (0, 1))
    assert clip(Estimate(0.5), 0) == Estimate(0.5)


def test_the_difference_of_means_has_welch_s_interval() -> None:
    above, below = np.array([3.0, 5.0, 4.0, 8.0]), np.array([1.0, 1.5, 0.5])
    found = difference_of_means(above, below)
    expected = ttest_ind(above, below, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(4.0)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_a_mean_of_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="1 and 2 values are too few"):
        difference_of_means(np.ones(1), np.ones(2))


def test_equal_values_differ_by_nothing() -> None:
    assert difference_of_means(np.ones(3), np.ones(2)).interval == (0.0, 0.0)
