"""Whether workers stay alive: deaths are counted, growth and restarts of their TorchServe are not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.workers.torchserve.replica import Stability


def seen(*looks: tuple[float, Iterable[int]]) -> Stability:
    lives = Stability()
    for now_s, pids in looks:
        lives.saw(frozenset(pids), now_s)
    return lives


def test_workers_that_live_are_sound() -> None:
    assert seen((0, [1, 2]), (100, [1, 2])).sound(100) == 2


def test_growth_is_no_death() -> None:
    assert seen((0, [1]), (1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3, 4])).sound(3) == 4


def test_two_deaths_are_an_accident() -> None:
    assert seen((0, [1]), (10, [2]), (20, [3])).sound(20) == 1


def test_three_deaths_within_a_minute_are_a_loop() -> None:
    lives = seen((0, [1]), (10, [2]), (20, [3]), (30, [4]))
    assert lives.sound(30) == 0
    assert lives.reason.startswith("its workers keep dying (3 times in the last minute)")


def test_being_away_between_lives_is_one_death() -> None:
    assert seen((0, [1]), (1, []), (10, [2]), (11, []), (20, [3])).sound(20) == 1


def test_three_deaths_over_minutes_are_none_that_matters() -> None:
    assert seen((0, [1]), (50, [2]), (100, [3]), (150, [4])).sound(150) == 1


def test_a_worker_that_lasted_is_trusted_again() -> None:
    lives = seen((0, [1]), (1, [2]), (2, [3]), (3, [4]))
    lives.saw(frozenset([4]), 17.9)
    assert lives.sound(17.9) == 0
    lives.saw(frozenset([4]), 18)
    assert lives.sound(18) == 1


def test_a_worker_that_lasts_is_relied_on_while_another_keeps_dying() -> None:
    looks = [(0, [1, 100]), *((20 + k, [1, 101 + k]) for k in range(6))]
    assert seen(*looks).sound(25) == 1


@pytest.mark.parametrize(("deaths", "sound"), [(5, 2), (6, 0)])
def test_more_workers_die_more_often_before_it_is_a_loop(deaths: int, sound: int) -> None:
    assert seen((0, [0, 1]), *((k, [2 * k, 2 * k + 1]) for k in range(1, deaths + 1))).sound(deaths) == sound


def test_a_restart_of_their_torchserve_is_nobodys_death() -> None:
    lives = Stability()
    for k in range(5):
        lives.saw(frozenset([k]), k)
        lives.forget()
    lives.saw(frozenset([9]), 9)
    assert lives.sound(9) == 1
