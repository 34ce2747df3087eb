"""The permutation of a plan's rows: keyed by the seed, and invertible."""

from __future__ import annotations

import numpy as np
import pytest

from service.augmentation.permutation import MAX_ROWS, Permutation


def rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1000, 4097])
def test_every_slot_is_sent_once(size: int) -> None:
    assert sorted(Permutation(3, size).slots(rows(size)).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 257, 4097, MAX_ROWS])
def test_it_is_undone_by_its_inverse(size: int) -> None:
    permutation, some = Permutation(9, size), rows(min(size, 5000))
    assert (permutation.rows(permutation.slots(some)) == some).all()


def test_it_never_changes() -> None:
    assert Permutation(7, 10).slots(rows(10)).tolist() == [7, 0, 2, 5, 8, 6, 3, 1, 9, 4]
    assert Permutation(7, 2**40 - 3).slots(rows(3)).tolist() == [873842208268, 834024628625, 735419500960]


def test_another_seed_gives_another_order() -> None:
    assert Permutation(1, 1000).slots(rows(1000)).tolist() != Permutation(2, 1000).slots(rows(1000)).tolist()


def test_every_range_is_a_mix() -> None:
    """Of 100 ranges of 1000 rows each holds about half of the first half of the slots: 500 ± 5 σ of 16."""
    first_half = (Permutation(5, 100_000).slots(rows(100_000)) < 50_000).reshape(100, 1000).sum(axis=1)
    assert np.abs(first_half - 500).max() < 80


def test_it_does_not_change_its_argument() -> None:
    some = rows(10)
    Permutation(1, 10).slots(some)
    assert some.tolist() == list(range(10))
