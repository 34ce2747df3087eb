"""What work costs, from warm-up and from calls."""

from __future__ import annotations

import pytest

from service.scheduler.costs import CostModel


def learn(costs: CostModel, per_call_s: float, per_unit_s: float, sizes=(8, 80, 200, 800), rounds: int = 20) -> None:
    for _ in range(rounds):
        for size in sizes:
            costs.learn(size, per_call_s + per_unit_s * size)


def test_warm_up_gives_the_first_costs() -> None:
    costs = CostModel({8: 0.002, 64: 0.032})
    assert (costs.granule, costs.smallest, costs.per_unit_s) == (8, 8, 0.00025)
    assert costs.seconds(800) == pytest.approx(0.2)
    assert costs.units_within(0.02) == pytest.approx(80)


def test_a_first_batch_that_costs_more_is_a_cost_of_the_call() -> None:
    costs = CostModel({1: 0.0110, 256: 0.256})
    assert (costs.granule, costs.smallest) == (256, 1)
    assert (costs.per_call_s, costs.per_unit_s) == pytest.approx((0.010, 0.001))


@pytest.mark.parametrize("told", [{}, {8: 0.0}, {8: float("nan")}, {8: -1.0}], ids=["none", "zero", "nan", "negative"])
def test_nothing_told_is_guessed(told) -> None:
    assert CostModel(told).seconds(10) == pytest.approx(0.01)


def test_calls_tell_the_pace_of_both_parts() -> None:
    costs = CostModel({1: 0.0110, 256: 0.256})  # a = 10 ms, b = 1 ms
    learn(costs, 0.020, 0.002)
    assert (costs.per_call_s, costs.per_unit_s) == pytest.approx((0.020, 0.002), rel=0.02)


def test_calls_of_one_size_tell_their_sum() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.001, sizes=(64,))
    assert costs.seconds(64) == pytest.approx(0.064, rel=0.01)


def test_small_calls_of_a_slower_machine_tell_what_large_ones_cost() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    learn(costs, 0.0, 0.00125, sizes=(8, 16))
    assert costs.seconds(800) == pytest.approx(1.0, rel=0.05)


def test_a_machine_that_grows_slower_is_followed() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    learn(costs, 0.0, 0.001)
    assert costs.seconds(800) == pytest.approx(0.8, rel=0.05)


def test_one_stall_is_not_believed() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    costs.learn(800, 20.0)
    assert costs.seconds(800) < 0.3


def test_calls_that_contradict_give_no_negative_cost() -> None:
    costs = CostModel({8: 0.002})
    for size, seconds in ((8, 0.02), (800, 0.01)) * 20:
        costs.learn(size, seconds)
    assert costs.per_call_s >= 0
    assert costs.per_unit_s > 0


@pytest.mark.parametrize(("units", "seconds"), [(0, 1.0), (8, 0.0), (8, float("inf"))])
def test_what_says_nothing_is_passed_over(units, seconds) -> None:
    costs = CostModel({8: 0.002})
    costs.learn(units, seconds)
    assert costs.seconds(8) == pytest.approx(0.002)


def test_a_budget_below_one_call_holds_nothing() -> None:
    assert CostModel({1: 0.011, 256: 0.256}).units_within(0.005) == 0
