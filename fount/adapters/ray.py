"""A plan as a data source of Ray Data: `ray.data.read_datasource(PlanDatasource(plan))`.

Each read task pulls one shard, wherever Ray runs it. Rows have the columns `image` (H, W, C) uint8 and `label`, and
those of the requested provenance. Rejected rows are omitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask
from ray.data.block import Block, BlockAccessor, BlockMetadata

from fount.adapters import BATCH_FIELDS
from fount.augmentation.plan import AnyPlan, ticket_of
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import MAX_SHARDS, shard_range
from fount.client.sync import Client

__all__ = ["PlanDatasource"]

_BLOCK_BYTES = 16 * 2**20  # the approximate size of a block


class PlanDatasource(Datasource):
    """The rows of a plan.

    Example:
        >>> rows = ray.data.read_datasource(PlanDatasource(plan, "gateway:50051"))
    """

    def __init__(self, plan: AnyPlan, server: str | None = None, *, provenance: Level = "none") -> None:
        """Request the description of the plan.

        Args:
            plan: a plan, or its ticket.
            server: as in `Client`; must be reachable from wherever Ray runs.
            provenance: how much provenance each row has, as columns.
        """
        self._ticket, self._server, self._provenance = ticket_of(plan), server, provenance
        with Client(server) as client:
            self._info = client.pull_info(self._ticket, provenance=provenance)

    def estimate_inmemory_data_size(self) -> int | None:
        """Estimate the bytes of all rows."""
        return self._info.rows * self._row_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Make `parallelism` read tasks of one shard each, but no more than there are rows."""
        shards = max(1, min(parallelism, self._info.rows, MAX_SHARDS))
        return [self._task(shard, shards, per_task_row_limit) for shard in range(shards)]

    @property
    def _row_bytes(self) -> int:
        return math.prod(self._info.shape) + 8

    def _task(self, shard: int, shards: int, row_limit: int | None) -> ReadTask:
        rows = len(shard_range(self._info.rows, shard, shards))
        metadata = BlockMetadata(num_rows=None, size_bytes=rows * self._row_bytes, input_files=None, exec_stats=None)
        read: Callable[[], Iterable[Block]] = partial(
            _read, self._ticket, self._server, shard, shards, self._provenance, max(1, _BLOCK_BYTES // self._row_bytes)
        )
        return ReadTask(read, metadata, per_task_row_limit=row_limit)


def _read(
    ticket: bytes, server: str | None, shard: int, shards: int, provenance: Level, block_rows: int
) -> Iterator[Block]:
    batches: list[RowBatch] = []
    with Client(server) as client:
        for batch in client.pull(ticket, shard=shard, shards=shards, provenance=provenance):
            batches.append(batch.accepted())
            if sum(map(len, batches)) >= block_rows:
                yield _block(batches)
                batches = []
    if sum(map(len, batches)):
        yield _block(batches)


def _block(batches: list[RowBatch]) -> Block:
    columns: dict[str, NDArray[Any]] = {"image": np.concatenate([batch.images for batch in batches])}
    for name, field in BATCH_FIELDS.items():
        arrays = [getattr(batch, field) for batch in batches]
        if name == "transforms" or all(array is None for array in arrays):
            continue
        absent = np.int64(1) if name == "weight" else np.float32("nan")  # in batches that lack the column
        columns[name] = np.concatenate(
            [
                np.full(len(batch), absent) if array is None else array
                for array, batch in zip(arrays, batches, strict=True)
            ]
        )
    if batches[0].transforms is not None:
        parameters = np.concatenate([batch.transforms for batch in batches if batch.transforms is not None])
        columns |= {name: parameters[:, k] for k, name in enumerate(batches[0].transform_columns)}
    return BlockAccessor.batch_to_arrow_block(columns)
