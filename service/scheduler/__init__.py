"""The scheduler: which samples go into which worker call, and in which order.

`Work` of many streams enters; packed calls go to the worker pool; each stream gets its pieces back, in order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.catalog import LabelSource
from service.domain import Dtype, Failure, Labels, Parameters, Target

__all__ = ["Piece", "Scheduler", "Work"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One stream's samples.

    Attributes:
        target: the workers that may draw them; never mixed with others.
        parameters: of the draw; streams with equal ones share calls.
        dtype: of the rows wanted back.
        sample_bytes: size of one row.
        seed, start_index, count: which samples.
        labels: where their labels come from.
        caller: who asks.
        deadline_unix_s: when they stop being wanted; None is never.
        request_id: for logs.
        urgent: somebody sits waiting.
    """

    target: Target
    parameters: Parameters
    dtype: Dtype
    sample_bytes: int
    seed: int
    start_index: int
    count: int
    labels: LabelSource
    caller: Caller
    deadline_unix_s: float | None = None
    request_id: str = ""
    urgent: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Consecutive samples of one stream.

    Attributes:
        start_index: of the first.
        rows: (n, H, W, C), failed ones zero.
        labels: (n,), or None for an unconditional model.
        failures: by row.
    """

    start_index: int
    rows: NDArray[np.uint8] | NDArray[np.float32]
    labels: Labels | None
    failures: dict[int, Failure]


class Scheduler(Protocol):
    """Turns streams into worker calls."""

    def run(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Draw a stream's samples, in order, as its reader takes them.

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
