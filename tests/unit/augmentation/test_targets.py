"""Allocation of rows to classes, groups and sources: exact counts, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from service.augmentation.slots import RealMode, Source
from service.augmentation.targets import (
    Allocation,
    Balance,
    CapReached,
    Counts,
    Factor,
    Mix,
    Shortage,
    TargetRule,
    Weights,
    allocate,
    count_cells,
    share,
)

REAL, RESAMPLED, TRANSFORMED, SYNTHESISED, TRANSLATED, RECONSTRUCTED = Source
CELLS = np.array([[6, 4], [3, 2]])  # two classes of two groups
LARGEST = Balance(label=None, by_group=False)


def allocated(
    rule: TargetRule, *, cells=CELLS, mix: Mix | None = None, mode=RealMode.ONCE, subsample=False
) -> Allocation:
    groups = cells.shape[1] if cells.shape[1] > 1 else 0
    return allocate(cells, rule, group_count=groups, mix=mix or Mix(), mode=mode, subsample=subsample)


def counts(result: Allocation) -> dict[tuple[int, int, Source], int]:
    return {(each.label, each.group, each.source): each.count for each in result.strata}


def by_class(result: Allocation) -> list[int]:
    return np.bincount([each.label for each in result.strata], [each.count for each in result.strata]).tolist()


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (10, [0.5, 0.3, 0.2], [5, 3, 2]),
        (7, [6, 4], [4, 3]),
        (1, [0, 1e-300], [0, 1]),
        (0, [1, 2], [0, 0]),
        (2**40, [1, 2**40 - 1], [1, 2**40 - 1]),
        (3, [1e300, 1e300], [2, 1]),
    ],
)
def test_shares_are_exact(total: int, weights: list[float], shares: list[int]) -> None:
    assert share(total, weights) == shares


def test_cells_are_counted() -> None:
    labels, groups = np.array([0, 0, 1, 1, 1], np.uint32), np.array([0, 1, 1, 1, 0], np.uint32)
    assert count_cells(labels, groups, 3, 2).tolist() == [[1, 1], [1, 2], [0, 0]]


def test_cells_without_groups_have_one_column() -> None:
    assert count_cells(np.array([0, 2], np.uint32), None, 3, 0).tolist() == [[1], [0], [1]]


def test_a_factor_of_1_takes_every_row_once() -> None:
    assert counts(allocated(Factor(factor=1.0, by_group=False))) == {
        (0, 0, REAL): 6, (0, 1, REAL): 4, (1, 0, REAL): 3, (1, 1, REAL): 2,
    }  # fmt: skip


def test_balance_fills_up_in_proportion_to_groups() -> None:
    result = allocated(LARGEST)
    assert by_class(result) == [10, 10]
    assert counts(result)[1, 0, RESAMPLED] == 3
    assert counts(result)[1, 1, RESAMPLED] == 2


def test_balance_by_group_makes_all_groups_equal() -> None:
    result = allocated(Balance(label=None, by_group=True))
    totals = {(each.label, each.group): 0 for each in result.strata}
    for each in result.strata:
        totals[each.label, each.group] += each.count
    assert totals == {(0, 0): 6, (0, 1): 6, (1, 0): 6, (1, 1): 6}


def test_balance_to_a_class_is_its_count() -> None:
    assert by_class(allocated(Balance(label=1, by_group=False), subsample=True)) == [5, 5]


def test_a_factor_rounds_down() -> None:
    assert by_class(allocated(Factor(factor=1.5, by_group=False))) == [15, 7]


def test_a_factor_by_group_rounds_each_cell() -> None:
    assert by_class(allocated(Factor(factor=1.5, by_group=True))) == [9 + 6, 4 + 3]


def test_classes_without_a_count_keep_their_rows() -> None:
    assert by_class(allocated(Counts(counts={(1, None): 9}))) == [10, 9]


def test_counts_by_group_are_met() -> None:
    result = allocated(Counts(counts={(1, 1): 8}))
    assert counts(result)[1, 1, RESAMPLED] == 6
    assert counts(result)[1, 0, REAL] == 3


def test_weights_share_a_total() -> None:
    assert by_class(allocated(Weights(total=25, weights={0: 0.5, 1: 0.5}))) == [13, 12]


def test_fewer_rows_need_subsampling() -> None:
    result = allocated(Counts(counts={(0, None): 9}))
    assert result.shortages == [Shortage(field="target.counts.counts[0]", label=0, group=None, available=10, target=9)]


def test_a_subsample_leaves_rows_out_in_proportion() -> None:
    result = allocated(Counts(counts={(0, None): 5, (1, None): 0}), subsample=True)
    assert counts(result) == {(0, 0, REAL): 3, (0, 1, REAL): 2}


def test_a_plan_without_real_rows_may_be_smaller() -> None:
    result = allocated(Factor(factor=0.5, by_group=False), mode=RealMode.NONE)
    assert counts(result) == {
        (0, 0, RESAMPLED): 3,
        (0, 1, RESAMPLED): 2,
        (1, 0, RESAMPLED): 1,
        (1, 1, RESAMPLED): 1,
    }


def test_a_mix_is_shared_by_weight() -> None:
    mix = Mix(resampled=1, transformed=2, synthesised=1)
    result = allocated(Factor(factor=3.0, by_group=False), cells=np.array([[10]]), mix=mix)
    assert counts(result) == {
        (0, 0, REAL): 10, (0, 0, RESAMPLED): 5, (0, 0, TRANSFORMED): 10, (0, 0, SYNTHESISED): 5,
    }  # fmt: skip


def test_synthesised_rows_have_no_group() -> None:
    result = allocated(LARGEST, mix=Mix(resampled=0, synthesised=1))
    assert counts(result)[1, 2, SYNTHESISED] == 5


def test_a_cap_gives_the_rest_to_other_sources() -> None:
    mix = Mix(resampled=0, transformed=1, synthesised=3, max_synthetic_ratio=0.5)
    result = allocated(Factor(factor=3.0, by_group=False), cells=np.array([[10]]), mix=mix)
    assert counts(result) == {(0, 0, REAL): 10, (0, 0, TRANSFORMED): 15, (0, 0, SYNTHESISED): 5}
    assert result.caps_reached == [CapReached(label=0, requested=15, allowed=5, missing=0)]


def test_a_cap_without_other_sources_leaves_rows_missing() -> None:
    mix = Mix(resampled=0, synthesised=1, max_synthetic_ratio=0.25)
    result = allocated(Factor(factor=2.0, by_group=False), cells=np.array([[10]]), mix=mix)
    assert by_class(result) == [12]
    assert result.caps_reached == [CapReached(label=0, requested=10, allowed=2, missing=8)]


def test_a_cap_holds_for_a_class_over_its_groups() -> None:
    mix = Mix(resampled=0, synthesised=1, max_synthetic_ratio=1)
    result = allocated(Factor(factor=3.0, by_group=True), mix=mix)
    assert counts(result)[0, 2, SYNTHESISED] == 10
    assert counts(result)[1, 2, SYNTHESISED] == 5


def test_rows_made_from_rows_are_spread_over_groups() -> None:
    result = allocated(LARGEST, mix=Mix(resampled=0, translated=3, reconstructed=2))
    assert {key: count for key, count in counts(result).items() if key[0] == 1} == {
        (1, 0, REAL): 3, (1, 1, REAL): 2, (1, 0, TRANSLATED): 2, (1, 1, TRANSLATED): 1,
        (1, 0, RECONSTRUCTED): 1, (1, 1, RECONSTRUCTED): 1,
    }  # fmt: skip


def test_a_cap_holds_for_all_generated_rows_together() -> None:
    mix = Mix(resampled=0, transformed=1, synthesised=1, translated=1, reconstructed=1, max_synthetic_ratio=0.75)
    result = allocated(Factor(factor=3.0, by_group=False), cells=np.array([[10]]), mix=mix)
    assert counts(result) == {
        (0, 0, REAL): 10, (0, 0, TRANSFORMED): 13, (0, 0, SYNTHESISED): 3, (0, 0, TRANSLATED): 2,
        (0, 0, RECONSTRUCTED): 2,
    }  # fmt: skip
    assert result.caps_reached == [CapReached(label=0, requested=15, allowed=7, missing=0)]


def test_an_empty_class_has_no_rows_made_from_rows() -> None:
    mix = Mix(resampled=0, translated=1, reconstructed=1)
    result = allocated(LARGEST, cells=np.array([[4], [0]]), mix=mix)
    assert counts(result) == {(0, 0, REAL): 4}
    assert result.left_empty == [(1, None)]


def test_an_empty_class_is_synthesised_alone() -> None:
    result = allocated(LARGEST, cells=np.array([[4], [0]]), mix=Mix(resampled=1, synthesised=1))
    assert counts(result) == {(0, 0, REAL): 4, (1, 0, SYNTHESISED): 4}
    assert result.synthesised_alone == [1]


def test_an_empty_class_stays_empty_without_a_generator() -> None:
    result = allocated(LARGEST, cells=np.array([[4], [0]]))
    assert counts(result) == {(0, 0, REAL): 4}
    assert result.left_empty == [(1, None)]


def test_an_empty_class_that_is_named_is_an_error() -> None:
    result = allocated(Counts(counts={(1, None): 3}), cells=np.array([[4], [0]]))
    assert result.shortages == [Shortage(field="target.counts.counts[0]", label=1, group=None, available=0, target=3)]


def test_an_empty_group_stays_empty_with_any_mix() -> None:
    result = allocated(
        Balance(label=None, by_group=True), cells=np.array([[4, 0]]), mix=Mix(resampled=0, synthesised=1)
    )
    assert result.left_empty == [(0, 1)]
    assert counts(result)[0, 2, SYNTHESISED] == 4
