"""A plan as a torch `IterableDataset`: rows for a plain `DataLoader`, split by rank and worker, resumable to the row.

Rows are pulled as they are read. The channel is opened where and when iteration begins, so a data set holds a ticket
and an address alone: it can be pickled, and workers may be forked or spawned. Rows without a sample are left out.

    with workers      the loader asks ahead, so only the main process knows what was used: ask for the column "place",
                      and hand it to `track` after each batch; `state_dict` then says exactly what is left
    without workers   `state_dict` is exact by itself
    torchdata         `StatefulDataLoader` asks `state_dict` within each worker, which is exact there by itself

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

from fount.adapters.epoch_order import EpochOrder, Left, Span, cut, pull_places, share, subtract
from fount.augmentation.plan import AnyPlan, PlanInfo, ticket_of
from fount.augmentation.pull import Level
from fount.augmentation.rows import RowBatch
from fount.client.sync import Client
from fount.errors import InvalidRequest
from fount.v1 import augmentation_pb2

__all__ = ["COLUMNS", "Pull"]

_State = dict[str, Any]
_ALWAYS, _IDS, _FULL = (
    ("image", "label", "place", "row", "group", "weight"),
    ("source", "source_row", "seed", "index", "attempt"),
    ("transforms", "confidence", "copy_ratio"),
)
COLUMNS = (*_ALWAYS, *_IDS, *_FULL)
"""What a row can give: those of `RowBatch`, and its place in the epoch, for `Pull.track`."""

_FIELDS = {
    "label": "labels", "row": "rows", "group": "groups", "weight": "weights", "source": "sources",
    "source_row": "source_rows", "seed": "seeds", "index": "indices", "attempt": "attempts", "transforms": "transforms",
    "confidence": "confidences", "copy_ratio": "copy_ratios",
}  # fmt: skip

_ABSENT = {"group": -1, "weight": 1}
_VERSION = 1
_MOST_WORKERS = 1023


class Pull(IterableDataset[tuple[Any, ...]]):
    """The rows of a plan, each a tuple of the columns asked for.

    `image` is a (C, H, W) uint8 tensor, or what the transform makes of it; `label` an int; `place` a (2,) int64 tensor
    for `track`. The others are as `RowBatch` has them, unsigned numbers as the int64 of the same bits; where rows have
    none, `group` is -1, `weight` 1 and a real number NaN.

    Every epoch visits the same rows, each once; `set_epoch` gives them another order, in which blocks of up to 4096
    rows change places.

    Example:
        >>> pull = Pull(plan, columns=("image", "label", "place"))
        >>> for images, labels, places in DataLoader(pull, batch_size=64, num_workers=2):
        ...     train(images, labels)
        ...     pull.track(places)  # then pull.state_dict() says what is left
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
        """Name the rows; nothing is pulled, and no channel opened, before iteration begins.

        Args:
            plan: a plan, or its ticket.
            server: as in `Client`.
            columns: what each row gives, of `COLUMNS`.
            transform: is given each image.
            rank: which process of
            world_size: how many this is; unset, as torch.distributed or the environment (RANK, WORLD_SIZE) has it.
            timeout_s: seconds to wait for rows.

        Raises:
            InvalidRequest: a column is not known, or the rank is none of the world's.
        """
        self._ticket, self._server, self._timeout_s = ticket_of(plan), server, timeout_s
        self._columns, self._transform = tuple(columns), transform
        self._rank, self._world_size = _place_in_world(rank, world_size)
        self._check()
        self._plan = (plan.id, plan.rows) if isinstance(plan, PlanInfo | augmentation_pb2.Plan) else None
        # Shared, so that workers that outlive an epoch see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        # How often iteration began: here, and in each worker. Shared, because workers alone see when theirs does.
        self._visits = torch.zeros(1 + _MOST_WORKERS, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._seen = 0  # visits that `_left` is of
        self._left: list[Span] | None = None  # what iteration, or `track`, has left of the visit; None: all
        self._resume: _State | None = None  # where the visit after `_resume_after` begins; None: at the beginning
        self._resume_after = self._visits.clone()

    def _check(self) -> None:
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

    @property
    def epoch(self) -> int:
        """The epoch that iteration gives."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iteration begins; another one than the current begins with all of its rows."""
        if epoch != self.epoch:
            self._epoch.fill_(epoch)
            self._left = self._resume = None
            self._seen = self._begun()

    def track(self, places: torch.Tensor) -> None:
        """Take note, in the main process, that a batch of rows was used.

        Args:
            places: (B, 2) int64, the column "place".
        """
        self._notice_visit()
        if self._left is None:
            self._left = self._share(self._known()[1])
        self._left = subtract(self._left, ((first, end) for first, end in places.tolist()))

    def state_dict(self) -> _State:
        """What of the epoch is left: values that JSON can hold."""
        plan_id, rows = self._known()
        worker = get_worker_info()
        if worker is None:
            self._notice_visit()
        return {
            "version": _VERSION,
            "plan": plan_id,
            "epoch": self.epoch,
            "rank": [self._rank, self._world_size],
            "worker": None if worker is None else [worker.id, worker.num_workers],
            "left": [list(span) for span in (self._share(rows) if self._left is None else self._left)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration give what was left, and those after it everything again.

        The number of workers may be another, but that of ranks may not. Workers that stay from epoch to epoch
        (`persistent_workers`) must not have begun.

        Raises:
            InvalidRequest: it is of another plan, rank or world, or of a version that is not known.
        """
        due = {"version": _VERSION, "rank": [self._rank, self._world_size]}
        if self._plan is not None:
            due["plan"] = self._plan[0]
        if wrong := [
            (key, f"is {state.get(key)!r} in the state, {value!r} here")
            for key, value in due.items()
            if state.get(key) != value
        ]:
            raise InvalidRequest("The state cannot be gone on with:", fields=wrong)
        self._epoch.fill_(state["epoch"])
        self._resume, self._left = dict(state), _left_of(state)
        self._resume_after, self._seen = self._visits.clone(), self._begun()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        with Client(self._server, timeout_s=self._timeout_s) as client:
            plan_id, rows = self._plan = self._plan or _ask(client, self._ticket)
            left = Left(self._begin(plan_id, rows))
            self._left = left.spans
            order = EpochOrder(plan_id, rows, self.epoch)
            for first, batch in pull_places(client, self._ticket, order, [*left.spans], self._level()):
                begin = left.enter(first)
                ends = (np.flatnonzero(~batch.rejected) + first + 1).tolist()
                for row, end in zip(self._rows(batch.accepted(), [begin, *ends]), ends, strict=True):
                    left.advance(end)
                    self._left = left.spans
                    yield row
            self._left = []

    def _begin(self, plan_id: str, rows: int) -> list[Span]:
        """The places of this worker, or of what is left of them when a state was loaded."""
        info = get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        place = 0 if info is None else 1 + info.id % _MOST_WORKERS
        state = self._resume if self._visits[place] == self._resume_after[place] else None
        self._visits[place] += 1
        self._seen = self._begun()
        if state is None:
            return cut(self._share(rows), *worker)
        of_worker = state["worker"]
        if state["plan"] != plan_id or (of_worker is not None and tuple(of_worker) != worker):
            text = f"is of plan {state['plan']} and worker {of_worker}; this is worker {list(worker)} of plan {plan_id}"
            raise InvalidRequest("The state cannot be gone on with:", fields=[("state", text)])
        left = _left_of(state)
        return left if of_worker is not None else cut(left, *worker)

    def _begun(self) -> int:
        """How often iteration began, as far as it was here or in the first worker, which every visit has."""
        return int(self._visits[:2].sum())

    def _notice_visit(self) -> None:
        """Take note, in the main process, that workers have begun another visit."""
        if (begun := self._begun()) != self._seen:
            is_resumed = self._resume is not None and begun == int(self._resume_after[:2].sum()) + 1
            self._left = _left_of(self._resume) if is_resumed and self._resume else None
            self._seen = begun

    def _share(self, rows: int) -> list[Span]:
        return share(rows, self._rank, self._world_size)

    def _known(self) -> tuple[str, int]:
        if self._plan is None:
            with Client(self._server, timeout_s=self._timeout_s) as client:
                self._plan = _ask(client, self._ticket)
        return self._plan

    def _level(self) -> Level:
        if any(column in _FULL for column in self._columns):
            return "full"
        return "ids" if any(column in _IDS for column in self._columns) else "none"

    def _rows(self, batch: RowBatch, bounds: list[int]) -> Iterator[tuple[Any, ...]]:
        """The rows of a batch; row k accounts for the places bounds[k] to bounds[k + 1] - 1."""
        return zip(*(self._column(name, batch, bounds) for name in self._columns), strict=True)

    def _column(self, name: str, batch: RowBatch, bounds: list[int]) -> Iterable[Any]:
        if name == "image":
            pixels = np.ascontiguousarray(batch.images.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)
            images = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
            return images.unbind() if self._transform is None else map(self._transform, images)
        if name == "place":
            return torch.tensor([bounds[:-1], bounds[1:]]).T.unbind()  # (2, N) -> (N, 2)
        values = getattr(batch, _FIELDS[name])
        if values is None:
            return [_ABSENT.get(name, math.nan)] * len(batch)
        if values.ndim > 1:
            return torch.from_numpy(values.copy()).unbind()
        plain: list[Any] = (values.view(np.int64) if values.dtype == np.uint64 else values).tolist()
        return plain


def _left_of(state: _State | Mapping[str, Any]) -> list[Span]:
    return [(first, end) for first, end in state["left"]]


def _ask(client: Client, ticket: bytes) -> tuple[str, int]:
    info = client.pull_info(ticket, provenance="none")
    return info.plan_id, info.rows


def _place_in_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise InvalidRequest("The rows cannot be pulled:", fields=[("rank", "and world_size go together; give both")])
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
