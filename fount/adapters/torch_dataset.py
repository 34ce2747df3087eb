"""A plan as a torch `IterableDataset`: rows for a plain `DataLoader`, split by rank and worker, resumable at any row.

Rows are pulled as they are read. The channel is opened where and when iteration starts, so a data set holds only a
ticket and an address: it can be pickled, and workers may be forked or spawned. Rejected rows are omitted.

    with workers      workers prefetch, so only the main process knows which rows were used: request the column "place",
                      pass it to `track` after each batch, and `state_dict` is exact
    without workers   `state_dict` is exact by itself
    torchdata         `StatefulDataLoader` calls `state_dict` within each worker, where it is exact by itself

Source: the interface is that of `torch.utils.data.IterableDataset` and of torchdata's `Stateful`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from fount.adapters import BATCH_FIELDS
from fount.adapters.epoch_order import EpochOrder, RemainingPlaces, Span, pull_places, split_spans, subtract
from fount.augmentation.plan import AnyPlan, PlanInfo, ticket_of
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.client.sync import Client
from fount.errors import InvalidRequest
from fount.v1 import augmentation_pb2

__all__ = ["COLUMNS", "Pull"]

_State = Mapping[str, Any]
_COLUMNS_OF_LEVEL: Mapping[Level, tuple[str, ...]] = {
    "none": ("image", "label", "place", "row", "group", "weight"),
    "ids": ("source", "source_row", "seed", "index", "attempt"),
    "full": ("transforms", "confidence", "copy_ratio"),
}
COLUMNS = tuple(column for columns in _COLUMNS_OF_LEVEL.values() for column in columns)
"""The columns a row can have: those of `RowBatch`, and its place in the epoch, for `Pull.track`."""

_ABSENT = {"group": -1, "weight": 1}
_STATE_VERSION = 1
_MAX_WORKERS = 1023


class Pull(IterableDataset[tuple[Any, ...]]):
    """The rows of a plan, each a tuple of the requested columns.

    `image` is a (C, H, W) uint8 tensor, or the result of the transform; `label` an int; `place` a (2,) int64 tensor for
    `track`. The others are as in `RowBatch`, with unsigned numbers as the int64 of the same bits; where a plan lacks a
    column, `group` is -1, `weight` 1 and a real number NaN.

    Every epoch visits the same rows, each once; `set_epoch` selects another order, in which blocks of up to 4096 rows
    are shuffled.

    Example:
        >>> pull = Pull(plan, columns=("image", "label", "place"))
        >>> for images, labels, places in DataLoader(pull, batch_size=64, num_workers=2):
        ...     train(images, labels)
        ...     pull.track(places)  # then pull.state_dict() has the remaining rows
    """

    def __init__(
        self,
        plan: AnyPlan,
        server: str | None = None,
        *,
        columns: Sequence[str] = ("image", "label"),
        transform: Callable[[torch.Tensor], Any] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        timeout_s: float | None = 60.0,
    ) -> None:
        """Describe the rows; no channel is opened and nothing is pulled before iteration starts.

        Args:
            plan: a plan, or its ticket.
            server: as in `Client`.
            columns: of each row, from `COLUMNS`.
            transform: applied to each image.
            rank: this process, 0 to `world_size` - 1; unset, from torch.distributed or the environment (RANK).
            world_size: number of processes; unset, from torch.distributed or the environment (WORLD_SIZE).
            timeout_s: seconds to wait for rows.

        Raises:
            InvalidRequest: a column is unknown, or the rank is not within the world size.
        """
        self._ticket, self._server, self._timeout_s = ticket_of(plan), server, timeout_s
        self._columns, self._transform = tuple(columns), transform
        self._rank, self._world_size = _distributed_rank(rank, world_size)
        problems = [
            ("columns", f'holds "{column}"; it may hold {", ".join(COLUMNS)}')
            for column in self._columns
            if column not in COLUMNS
        ]
        if not self._columns:
            problems.append(("columns", "is empty; name at least one"))
        if not 0 <= self._rank < self._world_size:
            problems.append(("rank", f"is {self._rank} of {self._world_size}; ranks count from 0"))
        if problems:
            raise InvalidRequest("The rows cannot be pulled:", fields=problems)
        self._plan = (plan.id, plan.rows) if isinstance(plan, PlanInfo | augmentation_pb2.Plan) else None
        # Shared, so that workers that outlive an epoch see the number of the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        # How often iteration started: here, and in each worker. Shared, because only a worker sees when its own does.
        self._starts = torch.zeros(1 + _MAX_WORKERS, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._seen_starts = 0  # those that `_remaining` takes into account
        self._remaining: list[Span] | None = None  # places that iteration, or `track`, has not used; None: all
        self._resume: _State | None = None  # where the iteration after `_resume_after` starts; None: at the first row
        self._resume_after = self._starts.clone()

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch before iteration starts; an epoch other than the current one starts with all of its rows."""
        if epoch != self.epoch:
            self._epoch.fill_(epoch)
            self._remaining = self._resume = None
            self._seen_starts = self._count_starts()

    def track(self, places: torch.Tensor) -> None:
        """Record, in the main process, that a batch of rows was used; `places` is its column "place", (B, 2) int64."""
        self._notice_start()
        if self._remaining is None:
            self._remaining = self._share(self._plan_info()[1])
        self._remaining = subtract(self._remaining, ((first, end) for first, end in places.tolist()))

    def state_dict(self) -> dict[str, Any]:
        """Return the remaining places of the epoch, as values that JSON can store."""
        plan_id, rows = self._plan_info()
        worker = get_worker_info()
        if worker is None:
            self._notice_start()
        return {
            "version": _STATE_VERSION,
            "plan": plan_id,
            "epoch": self.epoch,
            "rank": [self._rank, self._world_size],
            "worker": None if worker is None else [worker.id, worker.num_workers],
            "left": [list(span) for span in (self._share(rows) if self._remaining is None else self._remaining)],
        }

    def load_state_dict(self, state: _State) -> None:
        """Resume: the next iteration returns the remaining rows, those after it all rows.

        The number of workers may differ, the number of ranks may not. Workers that stay from epoch to epoch
        (`persistent_workers`) must not have started. A state of another plan is refused.
        """
        expected = {"version": _STATE_VERSION, "rank": [self._rank, self._world_size]}
        if self._plan is not None:
            expected["plan"] = self._plan[0]
        if wrong := [
            (key, f"is {state.get(key)!r} in the state, {value!r} here")
            for key, value in expected.items()
            if state.get(key) != value
        ]:
            raise InvalidRequest("The state cannot be resumed:", fields=wrong)
        self._epoch.fill_(state["epoch"])
        self._resume, self._remaining = dict(state), _remaining_of(state)
        self._resume_after, self._seen_starts = self._starts.clone(), self._count_starts()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        with Client(self._server, timeout_s=self._timeout_s) as client:
            plan_id, rows = self._plan = self._plan or _request_plan(client, self._ticket)
            remaining = RemainingPlaces(self._start(plan_id, rows))
            self._remaining = remaining.spans
            order = EpochOrder(plan_id, rows, self.epoch)
            for first, batch in pull_places(client, self._ticket, order, [*remaining.spans], self._level()):
                begin = remaining.enter(first)
                ends = (np.flatnonzero(~batch.rejected) + first + 1).tolist()
                for row, end in zip(self._rows(batch.accepted(), [begin, *ends]), ends, strict=True):
                    remaining.advance(end)
                    self._remaining = remaining.spans
                    yield row
            self._remaining = []

    def _start(self, plan_id: str, rows: int) -> list[Span]:
        """Start an iteration: return the places of this worker, or the remaining ones of a loaded state."""
        info = get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        slot = 0 if info is None else 1 + info.id % _MAX_WORKERS
        state = self._resume if self._starts[slot] == self._resume_after[slot] else None
        self._starts[slot] += 1
        self._seen_starts = self._count_starts()
        if state is None:
            return split_spans(self._share(rows), *worker)
        saved_worker = state["worker"]
        if state["plan"] != plan_id or (saved_worker is not None and tuple(saved_worker) != worker):
            text = (
                f"is of plan {state['plan']} and worker {saved_worker}; this is worker {list(worker)} of plan {plan_id}"
            )
            raise InvalidRequest("The state cannot be resumed:", fields=[("state", text)])
        remaining = _remaining_of(state)
        return remaining if saved_worker is not None else split_spans(remaining, *worker)

    def _count_starts(self) -> int:
        """Count the iterations started here or in the first worker, which takes part in each."""
        return int(self._starts[:2].sum())

    def _notice_start(self) -> None:
        """Detect, in the main process, that workers have started another iteration."""
        if (starts := self._count_starts()) != self._seen_starts:
            is_resumed = self._resume is not None and starts == int(self._resume_after[:2].sum()) + 1
            self._remaining = _remaining_of(self._resume) if is_resumed and self._resume else None
            self._seen_starts = starts

    def _share(self, rows: int) -> list[Span]:
        return split_spans([(0, rows)], self._rank, self._world_size)

    def _plan_info(self) -> tuple[str, int]:
        if self._plan is None:
            with Client(self._server, timeout_s=self._timeout_s) as client:
                self._plan = _request_plan(client, self._ticket)
        return self._plan

    def _level(self) -> Level:
        """The least provenance that has the requested columns."""
        return next(
            (level for level in ("full", "ids") if not set(_COLUMNS_OF_LEVEL[level]).isdisjoint(self._columns)), "none"
        )

    def _rows(self, batch: RowBatch, bounds: list[int]) -> Iterator[tuple[Any, ...]]:
        """Make the rows of a batch; row k accounts for the places bounds[k] to bounds[k + 1] - 1."""
        return zip(*(self._column(name, batch, bounds) for name in self._columns), strict=True)

    def _column(self, name: str, batch: RowBatch, bounds: list[int]) -> Iterable[Any]:
        if name == "image":
            pixels = np.ascontiguousarray(batch.images.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)
            images = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
            return images.unbind() if self._transform is None else map(self._transform, images)
        if name == "place":
            return torch.tensor([bounds[:-1], bounds[1:]]).T.unbind()  # (2, N) -> (N, 2)
        values = getattr(batch, BATCH_FIELDS[name])
        if values is None:
            return [_ABSENT.get(name, math.nan)] * len(batch)
        if values.ndim > 1:
            return torch.from_numpy(values.copy()).unbind()
        plain: list[Any] = (values.view(np.int64) if values.dtype == np.uint64 else values).tolist()
        return plain


def _remaining_of(state: _State) -> list[Span]:
    return [(first, end) for first, end in state["left"]]


def _request_plan(client: Client, ticket: bytes) -> tuple[str, int]:
    info = client.pull_info(ticket, provenance="none")
    return info.plan_id, info.rows


def _distributed_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise InvalidRequest("The rows cannot be pulled:", fields=[("rank", "requires world_size; give both or none")])
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
