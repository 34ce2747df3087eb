"""Slots: what every row of a plan is made from, computed from its number alone."""

from __future__ import annotations

import numpy as np
import pytest

from service.augmentation.slots import Layout, RealMode, Source, Stratum, poisson_weights

FROM_ROWS = (Source.RESAMPLED, Source.TRANSFORMED, Source.TRANSLATED, Source.RECONSTRUCTED)
LABELS = np.repeat(np.array([0, 1, 2], np.uint32), [50, 30, 20])


def stratum(label: int, source: Source, count: int, group: int = 0) -> Stratum:
    return Stratum(label=label, group=group, source=source, count=count)


def layout(*strata: Stratum, mode: RealMode = RealMode.ONCE, seed: int = 1) -> Layout:
    return Layout(labels=LABELS, groups=None, group_count=0, strata=strata, mode=mode, seed=seed)


def test_it_has_the_rows_of_its_strata() -> None:
    slots = layout(stratum(0, Source.REAL, 50), stratum(1, Source.RESAMPLED, 70)).rows(0, 120)
    assert np.bincount(slots.source).tolist() == [0, 50, 70]
    assert np.bincount(slots.label).tolist() == [50, 70]


def test_rows_are_counted_by_source() -> None:
    plan = layout(stratum(0, Source.REAL, 50), stratum(1, Source.RESAMPLED, 70), stratum(2, Source.RESAMPLED, 5))
    assert (plan.count, plan.source_counts) == (125, {Source.REAL: 50, Source.RESAMPLED: 75})
    assert plan.source_counts[Source.SYNTHESISED] == 0


def test_rows_come_from_their_own_class() -> None:
    sources = (Source.RESAMPLED, Source.TRANSFORMED)
    slots = layout(*(stratum(label, source, 40) for label in range(3) for source in sources)).rows(0, 240)
    assert (LABELS[slots.source_row] == slots.label).all()


def test_rows_come_from_their_own_group() -> None:
    groups = (np.arange(100) % 4).astype(np.uint32)
    strata = [stratum(label, Source.TRANSFORMED, 15, group) for label in range(3) for group in range(4)]
    plan = Layout(labels=LABELS, groups=groups, group_count=4, strata=tuple(strata), mode=RealMode.ONCE, seed=1)
    slots = plan.rows(0, plan.count)
    assert (groups[slots.source_row] == slots.group).all()
    assert (LABELS[slots.source_row] == slots.label).all()


def test_any_range_has_the_same_rows() -> None:
    plan = layout(stratum(0, Source.REAL, 50), stratum(0, Source.RESAMPLED, 500), stratum(2, Source.TRANSFORMED, 99))
    whole, part = plan.rows(0, plan.count), plan.rows(123, 45)
    for name in ("index", "source", "label", "group", "source_row", "weight"):
        assert getattr(part, name).tolist() == getattr(whole, name)[123:168].tolist()


def test_synthesised_rows_have_no_source_row() -> None:
    slots = layout(stratum(1, Source.SYNTHESISED, 5)).rows(0, 5)
    assert slots.source_row.tolist() == [-1] * 5
    assert slots.weight.tolist() == [1] * 5


def test_each_real_row_is_taken_once() -> None:
    slots = layout(stratum(1, Source.REAL, 30)).rows(0, 30)
    assert sorted(slots.source_row.tolist()) == list(range(50, 80))


def test_a_smaller_class_is_a_choice_without_replacement() -> None:
    chosen = layout(stratum(1, Source.REAL, 10)).rows(0, 10).source_row.tolist()
    other = layout(stratum(1, Source.REAL, 10), seed=2).rows(0, 10).source_row.tolist()
    assert len(set(chosen)) == 10
    assert set(chosen) != set(other)


@pytest.mark.parametrize("source", [Source.TRANSFORMED, Source.TRANSLATED, Source.RECONSTRUCTED])
def test_rows_made_from_rows_use_every_row_equally_often(source: Source) -> None:
    slots = layout(stratum(2, source, 45)).rows(0, 45)
    assert set(np.bincount(slots.source_row - 80).tolist()) == {2, 3}


def test_resampled_rows_are_drawn_evenly() -> None:
    slots = layout(stratum(2, Source.RESAMPLED, 20_000)).rows(0, 20_000)
    counts = np.bincount(slots.source_row - 80)
    assert np.abs(counts - 1000).max() < 160  # 5 σ of sqrt(20 000 · 1/20 · 19/20) = 31


def test_a_bootstrap_leaves_about_a_third_out() -> None:
    labels = np.zeros(10_000, np.uint32)
    strata = (stratum(0, Source.REAL, 10_000),)
    plan = Layout(labels=labels, groups=None, group_count=0, strata=strata, mode=RealMode.BOOTSTRAP, seed=1)
    assert len(plan.out_of_bag()) / 10_000 == pytest.approx(np.exp(-1), abs=0.02)


@pytest.mark.parametrize("mode", [RealMode.BOOTSTRAP, RealMode.POISSON])
def test_nothing_is_made_from_rows_out_of_bag(mode: RealMode) -> None:
    strata = [stratum(label, Source.REAL, count) for label, count in enumerate((50, 30, 20))]
    strata += [stratum(label, source, 200) for label in range(3) for source in FROM_ROWS]
    plan = layout(*strata, mode=mode)
    slots = plan.rows(0, plan.count)
    used = set(slots.source_row[slots.weight > 0].tolist())
    assert used.isdisjoint(plan.out_of_bag().tolist())
    assert len(used) + len(plan.out_of_bag()) == 100


def test_poisson_rows_are_taken_once_with_weights() -> None:
    slots = layout(stratum(0, Source.REAL, 50), mode=RealMode.POISSON).rows(0, 50)
    assert sorted(slots.source_row.tolist()) == list(range(50))
    assert slots.weight.tolist() == poisson_weights(1, slots.source_row).tolist()


def test_poisson_weights_are_poisson() -> None:
    counts = np.bincount(poisson_weights(3, np.arange(100_000)))[:4] / 100_000
    assert counts == pytest.approx([0.3679, 0.3679, 0.1839, 0.0613], abs=0.008)


def test_out_of_bag_needs_a_bootstrap() -> None:
    with pytest.raises(ValueError, match="not bootstrapped"):
        layout(stratum(0, Source.REAL, 50)).out_of_bag()


def test_a_class_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="class 3, group 0 has 0 rows"):
        layout(stratum(3, Source.RESAMPLED, 1))


def test_it_never_changes() -> None:
    slots = layout(stratum(0, Source.REAL, 3), stratum(1, Source.RESAMPLED, 3), stratum(2, Source.TRANSFORMED, 2))
    rows = slots.rows(0, 8)
    assert list(zip(rows.source.tolist(), rows.source_row.tolist(), strict=True)) == [
        (1, 27),
        (1, 6),
        (3, 84),
        (3, 98),
        (2, 55),
        (1, 15),
        (2, 74),
        (2, 56),
    ]


def test_a_plan_far_larger_than_memory_can_be_read() -> None:
    plan = layout(stratum(0, Source.SYNTHESISED, 2**39), stratum(1, Source.RESAMPLED, 2**39))
    assert (plan.rows(2**40 - 3, 3).index == np.array([2**40 - 3, 2**40 - 2, 2**40 - 1], np.uint64)).all()
