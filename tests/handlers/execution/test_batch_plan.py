"""Batch plans: the fastest predicted split of rows, and predictions updated by observed times."""

from __future__ import annotations

from functools import cache

import pytest

from handlers.execution.batch_plan import BatchTimes, plan_batches

FASTEST_IS_32 = {1: 0.9, 8: 3.2, 16: 6.0, 32: 11.0, 64: 24.0, 256: 100.0}


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        pytest.param(0, [], id="nothing"),
        pytest.param(1, [1], id="one"),
        pytest.param(3, [1, 1, 1], id="several small ones before a padded one"),
        pytest.param(5, [8], id="a padded one before several small ones"),
        pytest.param(33, [32, 1], id="a rest of its own"),
        pytest.param(256, [32] * 8, id="not the largest"),
        pytest.param(1000, [32] * 31 + [8], id="beyond the table"),
    ],
)
def test_rows_are_split_by_predicted_time(rows: int, sizes: list[int]) -> None:
    assert plan_batches(FASTEST_IS_32).split(rows) == sizes


def test_a_smaller_size_that_seems_slower_than_a_larger_one_is_still_used_for_few_rows() -> None:
    assert plan_batches({8: 9.0, 16: 2.0}).split(8) == [8]


@pytest.mark.parametrize("seconds", [{1: 1.0, 4: 2.5, 16: 11.0}, {2: 1.0, 8: 3.0, 16: 4.0}, {4: 1.0}], ids=str)
def test_up_to_twice_the_largest_size_no_other_split_is_faster(seconds: dict[int, float]) -> None:
    @cache
    def least(rows: int) -> float:
        return min(spent + (least(rows - size) if rows > size else 0) for size, spent in seconds.items())

    plan = plan_batches(seconds)
    for rows in range(1, 33):
        sizes = plan.split(rows)
        assert sum(sizes[:-1]) < rows <= sum(sizes)
        if rows <= 2 * max(seconds):
            assert sum(seconds[size] for size in sizes) == pytest.approx(least(rows))


def test_an_estimate_converges_to_observed_times() -> None:
    times = BatchTimes(measured={8: 1.0})
    for _ in range(50):
        times.observe(8, 1.5)
    assert times.seconds[8] == pytest.approx(1.5, rel=0.01)


def test_one_stall_moves_an_estimate_little() -> None:
    times = BatchTimes(measured={8: 1.0})
    for _ in range(20):
        times.observe(8, 1.0)
    times.observe(8, 1000.0)
    assert times.seconds[8] == pytest.approx(1.1)


def test_the_plan_follows_the_estimates() -> None:
    times = BatchTimes(measured={8: 1.0, 16: 1.9})
    before = times.plan(16).split(16)
    for _ in range(20):
        times.observe(16, 3.0)
    assert (before, times.plan(16).split(16)) == ([16], [8, 8])


def test_a_plan_stays_within_the_size_that_fits_memory() -> None:
    assert BatchTimes(measured={8: 1.0, 16: 1.1}).plan(8).split(16) == [8, 8]


def test_an_idle_size_is_reset_to_its_measured_time() -> None:
    times = BatchTimes(measured={8: 1.0, 16: 1.9})
    for _ in range(20):
        times.observe(16, 3.0)
    seen = []
    for _ in range(256):
        seen.append(times.seconds[16])
        times.observe(8, 1.0)
    assert seen[-1] > 2.5
    assert times.seconds[16] == 1.9
    assert times.plan(16).split(16) == [16]
