"""The expected cost of calls, and when the next call leaves."""

from __future__ import annotations

import pytest

from service.scheduler.timing import CostModel, DispatchTiming

ROUND_TRIP_S = 0.004  # the initial value


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


@pytest.mark.parametrize("times", [{}, {8: 0.0}, {8: float("nan")}, {8: -1.0}], ids=["none", "zero", "nan", "negative"])
def test_costs_without_measurements_have_a_default(times) -> None:
    assert CostModel(times).seconds(10) == pytest.approx(0.01)


def test_calls_correct_both_coefficients() -> None:
    costs = CostModel({1: 0.0110, 256: 0.256})  # a = 10 ms, b = 1 ms
    learn(costs, 0.020, 0.002)
    assert (costs.per_call_s, costs.per_unit_s) == pytest.approx((0.020, 0.002), rel=0.02)


def test_calls_of_one_size_correct_the_sum() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.001, sizes=(64,))
    assert costs.seconds(64) == pytest.approx(0.064, rel=0.01)


def test_small_calls_on_a_slower_machine_predict_large_ones() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    learn(costs, 0.0, 0.00125, sizes=(8, 16))
    assert costs.seconds(800) == pytest.approx(1.0, rel=0.05)


def test_costs_follow_a_machine_that_becomes_slower() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    learn(costs, 0.0, 0.001)
    assert costs.seconds(800) == pytest.approx(0.8, rel=0.05)


def test_one_outlier_has_little_effect() -> None:
    costs = CostModel({8: 0.002})
    learn(costs, 0.0, 0.00025)
    costs.learn(800, 20.0)
    assert costs.seconds(800) < 0.3


def test_contradictory_calls_give_no_negative_cost() -> None:
    costs = CostModel({8: 0.002})
    for size, seconds in ((8, 0.02), (800, 0.01)) * 20:
        costs.learn(size, seconds)
    assert costs.per_call_s >= 0
    assert costs.per_unit_s > 0


@pytest.mark.parametrize(("units", "seconds"), [(0, 1.0), (8, 0.0), (8, float("inf"))])
def test_invalid_measurements_are_ignored(units, seconds) -> None:
    costs = CostModel({8: 0.002})
    costs.learn(units, seconds)
    assert costs.seconds(8) == pytest.approx(0.002)


def test_a_budget_below_the_cost_of_a_call_holds_nothing() -> None:
    assert CostModel({1: 0.011, 256: 0.256}).units_within(0.005) == 0


@pytest.fixture
def timing() -> DispatchTiming:
    return DispatchTiming()


def test_a_call_to_an_idle_worker_leaves_immediately(timing: DispatchTiming) -> None:
    assert timing.send_at_s(1) is None
    timing.sent("a", 0.1, 2, now_s=5.0)
    assert timing.send_at_s(2) is None  # the other worker is idle


def test_a_call_to_a_busy_worker_leaves_shortly_before_it_is_idle(timing: DispatchTiming) -> None:
    timing.sent("a", 0.1, 1, now_s=5.0)
    assert timing.send_at_s(1) == pytest.approx(5.1 + ROUND_TRIP_S / 2 - 0.75 * ROUND_TRIP_S)


def test_the_first_of_several_workers_to_become_idle_counts(timing: DispatchTiming) -> None:
    timing.sent("long", 0.5, 2, now_s=5.0)
    timing.sent("short", 0.1, 2, now_s=5.0)
    assert timing.send_at_s(2) == pytest.approx(5.1 - ROUND_TRIP_S / 4)


def test_a_call_queued_behind_another_ends_after_it(timing: DispatchTiming) -> None:
    timing.sent("a", 0.1, 1, now_s=5.0)
    timing.sent("b", 0.2, 1, now_s=5.09)
    timing.ended("a", 0.104, 0.1)
    assert timing.send_at_s(1) == pytest.approx(5.3, abs=0.005)


def test_an_ended_call_no_longer_counts(timing: DispatchTiming) -> None:
    timing.sent("a", 0.1, 1, now_s=5.0)
    timing.ended("a", 0.1, None)
    assert timing.send_at_s(1) is None


def test_the_round_trip_is_learned_from_calls_to_idle_workers(timing: DispatchTiming) -> None:
    for _ in range(60):
        timing.sent("a", 0.1, 1, now_s=5.0)
        timing.sent("b", 0.1, 1, now_s=5.0)
        timing.ended("a", 0.12, 0.1)
        timing.ended("b", 0.9, 0.1)  # most of it queued behind the other
    timing.sent("a", 0.1, 1, now_s=5.0)
    assert timing.send_at_s(1) == pytest.approx(5.1 - 0.005, abs=0.001)


def test_a_target_without_workers_needs_no_delay(timing: DispatchTiming) -> None:
    timing.sent("a", 0.1, 0, now_s=5.0)
    assert timing.send_at_s(0) is None


def test_one_stalled_call_does_not_delay_others(timing: DispatchTiming) -> None:
    timing.sent("a", 0.1, 1, now_s=5.0)
    timing.ended("a", 20.0, 0.1)
    timing.sent("b", 0.1, 1, now_s=30.0)
    assert timing.send_at_s(1) > 30.09


def test_a_lone_stream_is_not_delayed(timing: DispatchTiming) -> None:
    for k in range(100):
        timing.arrived(5 + 0.002 * k)
        assert timing.batching_until_s(5 + 0.002 * k, 1) == 5 + 0.002 * k
        timing.left()


def test_streams_that_arrive_at_a_low_rate_are_not_delayed(timing: DispatchTiming) -> None:
    for k in range(100):
        timing.arrived(5 + 0.004 * k)
    assert timing.batching_until_s(5.3, 1) == 5.3


def test_streams_at_a_high_rate_wait_until_half_of_them_share_a_call(timing: DispatchTiming) -> None:
    for k in range(32):
        timing.arrived(5 + 0.0005 * k)
    assert timing.batching_until_s(5.01, 15) > 5.01
    assert timing.batching_until_s(5.01, 16) == 5.01


def test_they_wait_no_longer_than_no_other_arrives(timing: DispatchTiming) -> None:
    for k in range(32):
        timing.arrived(5 + 0.0005 * k)
    assert timing.batching_until_s(5.014, 4) == pytest.approx(5.0155 + 0.003)


def test_none_waits_longer_than_the_limit(timing: DispatchTiming) -> None:
    for k in range(64):
        timing.arrived(5 + 0.0005 * k)
    assert timing.batching_until_s(5.0, 4) == pytest.approx(5.012)


def test_streams_that_ended_are_forgotten_as_others_arrive(timing: DispatchTiming) -> None:
    for k in range(32):
        timing.arrived(5 + 0.0005 * k)
    for _ in range(32):
        timing.left()
    for k in range(500):
        timing.arrived(6 + 0.0005 * k)
        timing.left()
    assert timing.batching_until_s(6.25, 1) == 6.25
