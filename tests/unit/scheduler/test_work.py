"""The items of worker calls that feeds build from ranges of a stream."""

from __future__ import annotations

import numpy as np
import pytest

from service.calls import ManipulationItem, RangeItem, TensorItem
from service.catalog.conditions import GivenLabels
from service.domain import Dtype
from service.scheduler.work import RangeFeed

LABELS = np.array([7, 8, 9, 6], np.uint32)
IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)


def of_indices(*indices: int, labels=LABELS) -> RangeItem:
    addresses = np.array(indices, np.uint64)
    return RangeItem(seed=3, start_index=0, count=len(indices), labels=labels, dtype=Dtype.UINT8, indices=addresses)


def test_a_range_is_counted_by_its_indices() -> None:
    feed = RangeFeed(seed=3, labels=GivenLabels(first_index=100, ids=LABELS), dtype=Dtype.UINT8)
    item = feed.part(101, 2)
    assert (item.seed, item.start_index, item.count, item.indices) == (3, 101, 2, None)
    assert item.labels is not None
    assert item.labels.tolist() == [8, 9]


@pytest.mark.parametrize(
    ("indices", "start", "sent"),
    [((5, 6, 7, 8), 6, None), ((5, 9, 10, 1), 9, None), ((5, 9, 3, 4), 0, [9, 3]), ((5, 2, 2, 4), 0, [2, 2]),
     ((0, 2**64 - 1, 0, 1), 0, [2**64 - 1, 0])],
    ids=["consecutive", "consecutive within the range", "down", "repeated", "around the end"],
)  # fmt: skip
def test_indices_are_sent_only_where_they_are_not_consecutive(indices, start, sent) -> None:
    item = of_indices(*indices).part(1, 2)
    assert (item.start_index, item.count) == (start, 2)
    assert (item.indices if item.indices is None else item.indices.tolist()) == sent
    assert item.labels is not None
    assert item.labels.tolist() == [8, 9]


def test_the_largest_index_has_no_successor() -> None:
    assert of_indices(2**64 - 2, 2**64 - 1, 0, 1).part(0, 2).start_index == 2**64 - 2


def test_a_part_of_consecutive_addresses_begins_later() -> None:
    part = RangeItem(seed=3, start_index=10, count=4, labels=LABELS, dtype=Dtype.UINT8).part(1, 2)
    assert (part.start_index, part.count, part.indices) == (11, 2, None)
    assert part.labels is not None
    assert part.labels.tolist() == [8, 9]


def test_an_unconditional_model_has_no_labels() -> None:
    assert of_indices(1, 2, 3, 4, labels=None).part(0, 3).labels is None


def test_images_are_sliced_without_a_copy() -> None:
    feed = TensorItem(rows=IMAGES)
    item = feed.part(1, 2)
    assert np.shares_memory(item.rows, IMAGES)
    assert (item.count, item.rows[0, 0, 0, 0], feed.row_dims, feed.row_bytes) == (2, 6, (2, 3, 1), 6)


def test_a_manipulation_keeps_rows_table_and_addresses_aligned() -> None:
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    feed = ManipulationItem(rows=IMAGES, table=table, seed=3, indices=np.array([9, 4, 2, 7], np.uint64))
    item = feed.part(2, 2)
    assert (item.rows[0, 0, 0, 0], item.table[0].tolist(), item.indices.tolist()) == (12, [4.0, 5.0], [2, 7])
    assert feed.row_bytes == 6 + 8 + 12
