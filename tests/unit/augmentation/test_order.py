"""The order of a plan's rows is a permutation, keyed by the seed, that can be read both ways."""

from __future__ import annotations

import numpy as np
import pytest

from service.augmentation.permutation import MAX_ROWS, Order


def rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1000, 4097])
def test_every_slot_is_sent_once(size: int) -> None:
    assert sorted(Order(3, size).slots(rows(size)).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 257, 4097, MAX_ROWS])
def test_it_is_undone_by_its_inverse(size: int) -> None:
    order, some = Order(9, size), rows(min(size, 5000))
    assert (order.rows(order.slots(some)) == some).all()


def test_it_is_the_same_for_ever() -> None:
    assert Order(7, 10).slots(rows(10)).tolist() == [7, 0, 2, 5, 8, 6, 3, 1, 9, 4]
    assert Order(7, 2**40 - 3).slots(rows(3)).tolist() == [873842208268, 834024628625, 735419500960]


def test_another_seed_is_another_order() -> None:
    assert Order(1, 1000).slots(rows(1000)).tolist() != Order(2, 1000).slots(rows(1000)).tolist()


def test_any_stretch_is_a_mix() -> None:
    """Of 100 stretches of 1000 rows each holds about half of the first half of the slots: 500 ± 5 σ of 16."""
    first_half = (Order(5, 100_000).slots(rows(100_000)) < 50_000).reshape(100, 1000).sum(axis=1)
    assert np.abs(first_half - 500).max() < 80


def test_it_leaves_its_argument_alone() -> None:
    some = rows(10)
    Order(1, 10).slots(some)
    assert some.tolist() == list(range(10))
