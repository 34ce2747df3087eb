"""The scheduler: which rows go into which worker call, and in which order.

`Work` of many streams enters; packed calls go to the worker pool; each stream gets its pieces back, in order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.domain import Failure, Labels, Operation, Parameters, Target
from service.scheduler.feeds import Feed

__all__ = ["Lane", "Piece", "Scheduler", "Work"]

Lane = tuple[Operation, Parameters, tuple[int, ...]]
"""What streams must have in common to share a call: operation, parameters, and the shape of the rows sent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One stream's rows.

    Attributes:
        target: the workers that may do them; never mixed with others.
        feed: what is asked of workers for any stretch of them.
        start_index, count: which of the feed's rows.
        sample_bytes: size of one row wanted back.
        caller: who asks.
        operation: what to do; streams of equal `lane` share calls.
        parameters: of the draw.
        row_cost: what a row costs a worker, in rows of the model's own size.
        deadline_unix_s: when they stop being wanted; None is never.
        request_id: for logs.
        urgent: somebody sits waiting.
        at_once: nobody looks at a part of them before all are there, so that first calls need not be short.
        is_guessed: sample_bytes is a guess, because only the workers know how wide their rows are.
    """

    target: Target
    feed: Feed
    count: int
    sample_bytes: int
    caller: Caller
    start_index: int = 0
    operation: Operation = Operation.SAMPLE
    parameters: Parameters = field(default_factory=Parameters)
    row_cost: float = 1.0
    deadline_unix_s: float | None = None
    request_id: str = ""
    urgent: bool = False
    at_once: bool = False
    is_guessed: bool = False

    @cached_property
    def lane(self) -> Lane:
        """What others must have in common with it to share its calls."""
        return self.operation, self.parameters, self.feed.row_dims


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Consecutive rows of one stream.

    Attributes:
        start_index: of the first.
        rows: (n, ...), failed ones zero; samples are (n, H, W, C).
        labels: (n,), or None where none were asked for.
        failures: by row.
    """

    start_index: int
    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    failures: dict[int, Failure]


class Scheduler(Protocol):
    """FairQueue streams into worker calls."""

    def run(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Do a stream's rows, in order, as its reader takes them.

        Closing the generator ends the stream: rows not yet sent to a worker never are.

        Raises:
            Overloaded: too many streams are open.
            NotReady: the target's workers are gone, and repeating did not help.
            WorkerFault: a worker answered wrongly.
        """
        ...

    async def close(self) -> None:
        """End every stream with NotReady, and wait for calls in flight."""
        ...
