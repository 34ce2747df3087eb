"""When the next call should leave."""

from __future__ import annotations

import pytest

from service.scheduler.dispatch_timing import DispatchTiming

HOP_S = 0.004  # what is assumed of a hop nobody measured


@pytest.fixture
def foresight() -> DispatchTiming:
    return DispatchTiming()


def test_an_idle_worker_is_sent_to_at_once(foresight: DispatchTiming) -> None:
    assert foresight.send_at_s(1) <= 0
    foresight.sent("a", 0.1, 2, now_s=5.0)
    assert foresight.send_at_s(2) <= 0  # the other worker is idle


def test_a_busy_one_shortly_before_it_is_through(foresight: DispatchTiming) -> None:
    foresight.sent("a", 0.1, 1, now_s=5.0)
    assert foresight.send_at_s(1) == pytest.approx(5.1 + HOP_S / 2 - 0.75 * HOP_S)


def test_the_first_of_several_counts(foresight: DispatchTiming) -> None:
    foresight.sent("long", 0.5, 2, now_s=5.0)
    foresight.sent("short", 0.1, 2, now_s=5.0)
    assert foresight.send_at_s(2) == pytest.approx(5.1 - HOP_S / 4)


def test_a_call_behind_another_ends_after_it(foresight: DispatchTiming) -> None:
    foresight.sent("a", 0.1, 1, now_s=5.0)
    foresight.sent("b", 0.2, 1, now_s=5.09)
    foresight.ended("a", 0.104, 0.1)
    assert foresight.send_at_s(1) == pytest.approx(5.3, abs=0.005)


def test_what_ended_is_forgotten(foresight: DispatchTiming) -> None:
    foresight.sent("a", 0.1, 1, now_s=5.0)
    foresight.ended("a", 0.1, None)
    assert foresight.send_at_s(1) <= 0


def test_the_hop_is_learned_from_calls_that_found_a_worker_idle(foresight: DispatchTiming) -> None:
    for _ in range(60):
        foresight.sent("a", 0.1, 1, now_s=5.0)
        foresight.sent("b", 0.1, 1, now_s=5.0)
        foresight.ended("a", 0.12, 0.1)
        foresight.ended("b", 0.9, 0.1)  # most of it behind the other
    foresight.sent("a", 0.1, 1, now_s=5.0)
    assert foresight.send_at_s(1) == pytest.approx(5.1 - 0.005, abs=0.001)


def test_no_worker_at_all_is_no_error(foresight: DispatchTiming) -> None:
    foresight.sent("a", 0.1, 0, now_s=5.0)
    assert foresight.send_at_s(0) == 0.0


def test_one_that_comes_alone_does_not_wait_for_company(foresight: DispatchTiming) -> None:
    for k in range(50):
        foresight.arrived(k * 0.010)
    assert foresight.company_until_s(0.5) <= 0.5


def test_those_that_come_thick_and_fast_wait_one_hop(foresight: DispatchTiming) -> None:
    for k in range(80):
        foresight.arrived(k * 0.001)
    assert foresight.company_until_s(0.5) == pytest.approx(0.5 + HOP_S)


def test_one_stall_does_not_make_everyone_wait(foresight: DispatchTiming) -> None:
    foresight.sent("a", 0.1, 1, now_s=5.0)
    foresight.ended("a", 20.0, 0.1)
    foresight.sent("b", 0.1, 1, now_s=30.0)
    assert foresight.send_at_s(1) > 30.09
    for k in range(80):
        foresight.arrived(k * 0.001)
    assert foresight.company_until_s(0.5) <= 0.51
