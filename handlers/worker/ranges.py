"""Ranges: the addresses an item names, consecutive ones or each by its index."""

from __future__ import annotations

import numpy as np

from fount.address import MAX_INDEX, Addresses
from fount.worker.v1 import worker_pb2
from handlers.worker.budget import ItemError

__all__ = ["check_range", "read_addresses"]


def check_range(wanted: worker_pb2.Range) -> None:
    """Refuse a range that names no addresses, or not as many as it says; nothing of its size is made.

    Raises:
        ItemError: it does.
    """
    if wanted.count == 0:
        raise ItemError("COUNT_WRONG", "count is 0; ask for 1 or more")
    if wanted.start_index + wanted.count > MAX_INDEX + 1:
        raise ItemError("INDEX_WRONG", "start_index + count is beyond 2^64; ask for fewer, or begin earlier")
    if not wanted.indices:
        return
    if len(wanted.indices) != wanted.count:
        given = f"{len(wanted.indices)} indices for {wanted.count} rows"
        raise ItemError("INDICES_WRONG", f"{given}; give one a row, or none and a start_index")
    if wanted.start_index:
        given = f"start_index is {wanted.start_index} beside indices"
        raise ItemError("INDICES_WRONG", f"{given}; set it to 0, or leave indices out")


def read_addresses(wanted: worker_pb2.Range) -> Addresses:
    """Read the addresses of a range that was checked."""
    if not wanted.indices:
        return Addresses.of_range(wanted.seed, wanted.start_index, wanted.count)
    indices = np.array(wanted.indices, np.uint64)
    return Addresses(seeds=np.full(wanted.count, wanted.seed, np.uint64), indices=indices)
