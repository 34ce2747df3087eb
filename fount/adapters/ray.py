"""A plan as a data source of Ray Data: `ray.data.read_datasource(PlanDatasource(plan))`.

Each read task pulls one shard, wherever Ray runs it; rows are columns `image` (H, W, C) uint8 and `label`, and what
provenance was asked for. Rows without a sample are left out.
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

from fount.augmentation.plan import AnyPlan, ticket_of
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import MAX_SHARDS, shard_range
from fount.client.sync import Client

__all__ = ["PlanDatasource"]

_BLOCK_BYTES = 16 * 2**20  # rows are gathered to blocks of about so much
_COLUMNS = {
    "label": "labels", "row": "rows", "group": "groups", "weight": "weights", "source": "sources",
    "source_row": "source_rows", "seed": "seeds", "index": "indices", "attempt": "attempts",
    "confidence": "confidences", "copy_ratio": "copy_ratios",
}  # fmt: skip


class PlanDatasource(Datasource):
    """The rows of a plan.

    Example:
        >>> rows = ray.data.read_datasource(PlanDatasource(plan, "gateway:50051"))
    """

    def __init__(self, plan: AnyPlan, server: str | None = None, *, provenance: Level = "none") -> None:
        """Ask what the plan holds.

        Args:
            plan: a plan, or its ticket.
            server: as in `Client`, but seen from wherever Ray runs.
            provenance: how much each row tells, as columns.

        Raises:
            FountError: the gateway does not know the plan, or does not answer.
        """
        self._ticket, self._server, self._provenance = ticket_of(plan), server, provenance
        with Client(server) as client:
            self._info = client.pull_info(self._ticket, provenance=provenance)

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all rows."""
        return self._info.rows * self._row_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task a shard, as many as Ray wants and there are rows for."""
        rows = self._info.rows
        shards = max(1, min(parallelism, rows, MAX_SHARDS))
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
    gathered: list[RowBatch] = []
    with Client(server) as client:
        for batch in client.pull(ticket, shard=shard, shards=shards, provenance=provenance):
            gathered.append(batch.accepted())
            if sum(map(len, gathered)) >= block_rows:
                yield _block(gathered)
                gathered = []
    if sum(map(len, gathered)):
        yield _block(gathered)


def _block(batches: list[RowBatch]) -> Block:
    columns: dict[str, NDArray[Any]] = {"image": np.concatenate([batch.images for batch in batches])}
    for name, field in _COLUMNS.items():
        values = [getattr(batch, field) for batch in batches]
        if any(each is not None for each in values):
            columns[name] = np.concatenate(
                [_filled(each, field, len(batch)) for each, batch in zip(values, batches, strict=True)]
            )
    if batches[0].transforms is not None:
        for column, name in enumerate(batches[0].transform_columns):
            columns[name] = np.concatenate(
                [batch.transforms[:, column] for batch in batches if batch.transforms is not None]
            )
    return BlockAccessor.batch_to_arrow_block(columns)


def _filled(values: NDArray[Any] | None, field: str, count: int) -> NDArray[Any]:
    """What a batch tells of a column that others of the block have."""
    if values is not None:
        return values
    return np.full(count, 1, np.int64) if field == "weights" else np.full(count, np.nan, np.float32)
