"""The order of an epoch and its division among consumers."""

import pytest

from fount.adapters.epoch_order import EpochOrder, split_spans, subtract


def rows_of(order, spans):
    return [row for each in order.row_ranges(spans) for row in range(each.first_row, each.end_row)]


def test_it_visits_rows_in_plan_order_in_epoch_0():
    assert rows_of(EpochOrder("plan", 10_000, 0), [(0, 10_000)]) == list(range(10_000))


@pytest.mark.parametrize("rows", [1, 63, 64, 10_000])
def test_it_visits_every_row_once_in_any_epoch(rows):
    assert sorted(rows_of(EpochOrder("plan", rows, 3), [(0, rows)])) == list(range(rows))


def test_it_visits_rows_in_another_order_in_every_epoch():
    orders = [tuple(rows_of(EpochOrder(plan, 1000, epoch), [(0, 1000)])) for plan in "ab" for epoch in (1, 2, 3)]
    assert len(set(orders)) == 6


def test_it_always_gives_an_epoch_the_same_order():
    first = [each.first_row for each in EpochOrder("plan", 640, 1).row_ranges([(0, 640)])]
    assert first == [128, 576, 192, 320, 448, 256, 512, 0, 64, 384]


def test_it_pulls_each_range_from_its_shard():
    for each in EpochOrder("plan", 1000, 1).row_ranges([(0, 1000)]):
        first, end = (1000 * shard // each.shards for shard in (each.shard, each.shard + 1))
        assert (each.first_row, each.end_row) == (first, end)


def test_it_begins_and_ends_within_row_ranges():
    order = EpochOrder("plan", 1000, 1)
    whole = rows_of(order, [(0, 1000)])
    assert rows_of(order, [(70, 75), (500, 700)]) == whole[70:75] + whole[500:700]


def test_it_visits_nothing_of_an_empty_plan():
    assert rows_of(EpochOrder("plan", 0, 1), []) == []


@pytest.mark.parametrize(("rows", "consumers"), [(10, 3), (2, 4), (0, 2), (1000, 7)])
def test_consumers_together_visit_every_place(rows, consumers):
    spans = [span for consumer in range(consumers) for span in split_spans([(0, rows)], consumer, consumers)]
    assert [place for first, end in spans for place in range(first, end)] == list(range(rows))


def test_it_splits_spans_into_equal_parts():
    assert [split_spans([(0, 3), (5, 6), (10, 14)], part, 2) for part in range(2)] == [[(0, 3), (5, 6)], [(10, 14)]]
    assert [split_spans([(0, 3), (5, 8)], part, 3) for part in range(3)] == [[(0, 2)], [(2, 3), (5, 6)], [(6, 8)]]


@pytest.mark.parametrize(
    ("taken", "remaining"),
    [
        ([], [(0, 10), (20, 30)]),
        ([(0, 10)], [(20, 30)]),
        ([(3, 5), (4, 6), (25, 26)], [(0, 3), (6, 10), (20, 25), (26, 30)]),
        ([(8, 22)], [(0, 8), (22, 30)]),
        ([(10, 20)], [(0, 10), (20, 30)]),
        ([(0, 99)], []),
    ],
)
def test_it_keeps_the_places_that_were_not_taken(taken, remaining):
    assert subtract([(0, 10), (20, 30)], taken) == remaining
