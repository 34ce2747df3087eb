"""The stability of workers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.workers.torchserve.group import Stability


def seen(*probes: tuple[float, Iterable[int]]) -> Stability:
    stability = Stability()
    for now_s, pids in probes:
        stability.update(frozenset(pids), now_s)
    return stability


def test_workers_that_stay_alive_are_reliable() -> None:
    assert seen((0, [1, 2]), (100, [1, 2])).reliable(100) == {1, 2}


def test_more_workers_are_not_a_death() -> None:
    assert seen((0, [1]), (1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3, 4])).reliable(3) == {1, 2, 3, 4}


def test_two_deaths_are_tolerated() -> None:
    assert seen((0, [1]), (10, [2]), (20, [3])).reliable(20) == {3}


def test_three_deaths_within_a_minute_are_a_loop() -> None:
    stability = seen((0, [1]), (10, [2]), (20, [3]), (30, [4]))
    assert stability.reliable(30) == set()
    assert stability.reason.startswith("its workers keep dying (3 times in the last minute)")


def test_a_pause_between_two_workers_is_one_death() -> None:
    assert seen((0, [1]), (1, []), (10, [2]), (11, []), (20, [3])).reliable(20) == {3}


def test_three_deaths_over_minutes_are_tolerated() -> None:
    assert seen((0, [1]), (50, [2]), (100, [3]), (150, [4])).reliable(150) == {4}


def test_a_worker_that_has_lived_for_a_while_is_reliable_again() -> None:
    stability = seen((0, [1]), (1, [2]), (2, [3]), (3, [4]))
    stability.update(frozenset([4]), 17.9)
    assert stability.reliable(17.9) == set()
    stability.update(frozenset([4]), 18)
    assert stability.reliable(18) == {4}


def test_a_worker_that_lives_is_reliable_while_another_keeps_dying() -> None:
    probes = [(0, [1, 100]), *((20 + k, [1, 101 + k]) for k in range(6))]
    assert seen(*probes).reliable(25) == {1}


@pytest.mark.parametrize(("deaths", "reliable"), [(5, 2), (6, 0)])
def test_the_limit_of_deaths_grows_with_the_workers(deaths: int, reliable: int) -> None:
    probes = [(k, [2 * k, 2 * k + 1]) for k in range(deaths + 1)]
    assert len(seen(*probes).reliable(deaths)) == reliable


def test_a_restart_of_torchserve_is_not_a_death() -> None:
    stability = Stability()
    for k in range(5):
        stability.update(frozenset([k]), k)
        stability.forget()
    stability.update(frozenset([9]), 9)
    assert stability.reliable(9) == {9}
