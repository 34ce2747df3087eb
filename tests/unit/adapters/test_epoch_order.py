"""Who takes which rows of an epoch, and in which order."""

import pytest

from fount.adapters.epoch_order import EpochOrder, cut, share, subtract


def rows_of(order, spans):
    return [row for stretch in order.stretches(spans) for row in range(stretch.first_row, stretch.end_row)]


def test_it_visits_rows_in_the_plan_s_order_at_first():
    assert rows_of(EpochOrder("plan", 10_000, 0), [(0, 10_000)]) == list(range(10_000))


@pytest.mark.parametrize("rows", [1, 63, 64, 10_000])
def test_it_visits_every_row_once_in_any_epoch(rows):
    assert sorted(rows_of(EpochOrder("plan", rows, 3), [(0, rows)])) == list(range(rows))


def test_it_visits_rows_in_another_order_in_every_epoch():
    orders = [tuple(rows_of(EpochOrder(plan, 1000, epoch), [(0, 1000)])) for plan in "ab" for epoch in (1, 2, 3)]
    assert len(set(orders)) == 6


def test_it_gives_an_epoch_the_same_order_always():
    first = [stretch.first_row for stretch in EpochOrder("plan", 640, 1).stretches([(0, 640)])]
    assert first == [128, 576, 192, 320, 448, 256, 512, 0, 64, 384]


def test_it_pulls_a_stretch_from_the_shard_it_is_of():
    for stretch in EpochOrder("plan", 1000, 1).stretches([(0, 1000)]):
        first, end = (1000 * shard // stretch.shards for shard in (stretch.shard, stretch.shard + 1))
        assert (stretch.first_row, stretch.end_row) == (first, end)


def test_it_begins_and_ends_within_stretches():
    order = EpochOrder("plan", 1000, 1)
    whole = rows_of(order, [(0, 1000)])
    assert rows_of(order, [(70, 75), (500, 700)]) == whole[70:75] + whole[500:700]


def test_it_visits_nothing_of_an_empty_plan():
    assert rows_of(EpochOrder("plan", 0, 1), []) == []


@pytest.mark.parametrize(("rows", "consumers"), [(10, 3), (2, 4), (0, 2), (1000, 7)])
def test_shares_make_up_the_whole(rows, consumers):
    spans = [span for consumer in range(consumers) for span in share(rows, consumer, consumers)]
    assert [place for first, end in spans for place in range(first, end)] == list(range(rows))


def test_it_cuts_spans_into_parts_of_equal_size():
    assert [cut([(0, 3), (5, 6), (10, 14)], part, 2) for part in range(2)] == [[(0, 3), (5, 6)], [(10, 14)]]
    assert [cut([(0, 3), (5, 8)], part, 3) for part in range(3)] == [[(0, 2)], [(2, 3), (5, 6)], [(6, 8)]]


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ([], [(0, 10), (20, 30)]),
        ([(0, 10)], [(20, 30)]),
        ([(3, 5), (4, 6), (25, 26)], [(0, 3), (6, 10), (20, 25), (26, 30)]),
        ([(8, 22)], [(0, 8), (22, 30)]),
        ([(10, 20)], [(0, 10), (20, 30)]),
        ([(0, 99)], []),
    ],
)
def test_it_leaves_what_was_not_taken(taken, left):
    assert subtract([(0, 10), (20, 30)], taken) == left
