"""The shards of a plan: disjoint, complete and of nearly equal size."""

from fount.augmentation.shards import shard_range


def test_it_puts_every_row_into_exactly_one_shard() -> None:
    assert [row for shard in range(8) for row in shard_range(101, shard, 8)] == list(range(101))
    assert shard_range(101, 3, 8) == range(37, 50)


def test_it_leaves_shards_empty_when_there_are_more_shards_than_rows() -> None:
    assert [len(shard_range(2, shard, 4)) for shard in range(4)] == [0, 1, 0, 1]
