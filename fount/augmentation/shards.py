"""Split the rows of a plan into shards: the one formula that the gateway and every reader share."""

from __future__ import annotations

__all__ = ["MAX_SHARDS", "shard_range"]

MAX_SHARDS = 65_536
"""The most shards a plan can be split into."""


def shard_range(rows: int, shard: int, shards: int) -> range:
    """Return the rows of shard 0 to shards - 1; all shards together hold every row once, in order.

    Returns:
        floor(rows * shard / shards) up to, but not including, floor(rows * (shard + 1) / shards).
    """
    return range(rows * shard // shards, rows * (shard + 1) // shards)
