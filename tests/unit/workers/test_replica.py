"""The state of a replica: its load by target, and the stability of its workers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.domain import Call, ModelKey, Operation, Parameters, Target
from service.workers.torchserve.replica import Load, Stability


def seen(*probes: tuple[float, Iterable[int]]) -> Stability:
    stability = Stability()
    for now_s, pids in probes:
        stability.update(frozenset(pids), now_s)
    return stability


def test_workers_that_stay_alive_are_reliable() -> None:
    assert seen((0, [1, 2]), (100, [1, 2])).reliable_workers(100) == 2


def test_more_workers_are_not_a_death() -> None:
    assert seen((0, [1]), (1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3, 4])).reliable_workers(3) == 4


def test_two_deaths_are_tolerated() -> None:
    assert seen((0, [1]), (10, [2]), (20, [3])).reliable_workers(20) == 1


def test_three_deaths_within_a_minute_are_a_loop() -> None:
    stability = seen((0, [1]), (10, [2]), (20, [3]), (30, [4]))
    assert stability.reliable_workers(30) == 0
    assert stability.reason.startswith("its workers keep dying (3 times in the last minute)")


def test_a_pause_between_two_workers_is_one_death() -> None:
    assert seen((0, [1]), (1, []), (10, [2]), (11, []), (20, [3])).reliable_workers(20) == 1


def test_three_deaths_over_minutes_are_tolerated() -> None:
    assert seen((0, [1]), (50, [2]), (100, [3]), (150, [4])).reliable_workers(150) == 1


def test_a_worker_that_has_lived_for_a_while_is_reliable_again() -> None:
    stability = seen((0, [1]), (1, [2]), (2, [3]), (3, [4]))
    stability.update(frozenset([4]), 17.9)
    assert stability.reliable_workers(17.9) == 0
    stability.update(frozenset([4]), 18)
    assert stability.reliable_workers(18) == 1


def test_a_worker_that_lives_is_reliable_while_another_keeps_dying() -> None:
    probes = [(0, [1, 100]), *((20 + k, [1, 101 + k]) for k in range(6))]
    assert seen(*probes).reliable_workers(25) == 1


@pytest.mark.parametrize(("deaths", "reliable"), [(5, 2), (6, 0)])
def test_the_limit_of_deaths_grows_with_the_workers(deaths: int, reliable: int) -> None:
    assert (
        seen((0, [0, 1]), *((k, [2 * k, 2 * k + 1]) for k in range(1, deaths + 1))).reliable_workers(deaths) == reliable
    )


def test_a_restart_of_torchserve_is_not_a_death() -> None:
    stability = Stability()
    for k in range(5):
        stability.update(frozenset([k]), k)
        stability.forget()
    stability.update(frozenset([9]), 9)
    assert stability.reliable_workers(9) == 1


ONE, OTHER = (Target(model=ModelKey(name=name, version="1", digest=""), numerics="") for name in ("one", "other"))


def call(target: Target, cost_s: float | None) -> Call:
    return Call(target=target, operation=Operation.SAMPLE, parameters=Parameters(), items=(), cost_s=cost_s)


def test_load_is_counted_for_each_target() -> None:
    load = Load()
    for each in (call(ONE, 0.5), call(ONE, 0.25), call(OTHER, 4)):
        load.add(each)
    assert (load.calls(ONE), load.seconds(ONE)) == (2, 0.75)
    assert (load.calls(OTHER), load.seconds(OTHER)) == (1, 4)


def test_no_rounding_error_remains_when_all_calls_have_ended() -> None:
    load, calls = Load(), [call(ONE, cost_s) for cost_s in (0.1, 0.2, 0.3)]
    for each in calls:
        load.add(each)
    for each in calls:
        load.remove(each)
    assert (load.calls(ONE), load.seconds(ONE)) == (0, 0)


def test_a_call_of_unknown_cost_counts_more_than_none_and_less_than_any_known_one() -> None:
    load = Load()
    load.add(call(ONE, None))
    assert 0 < load.seconds(ONE) < 0.0001
