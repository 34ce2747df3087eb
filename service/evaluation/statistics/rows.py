"""What every statistic asks of the rows it is given, and how they are gone through without a float64 copy of all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRETCH", "check_rows", "stretches"]

STRETCH = 2**17
"""How many numbers are worked on in float64 at a time: 1 MiB stays in a processor's cache."""

_FEWEST = 256  # rows of a stretch, however wide they are


def check_rows(rows: NDArray[Any], least: int = 1) -> None:
    """Refuse what no statistic can be taken of.

    Args:
        rows: (n, d), any real dtype.
        least: how many rows there must be.

    Raises:
        ValueError: not two axes, no columns, fewer than `least` rows, or rows that are not finite.
    """
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"rows have the shape (n, d) with d at least 1, not {rows.shape}")
    if len(rows) < least:
        raise ValueError(f"at least {least} rows are needed, there are {len(rows)}")
    finite = np.isfinite(rows)
    if not finite.all():
        wrong = int(np.count_nonzero(~finite.all(axis=1)))
        raise ValueError(f"{wrong} of {len(rows)} rows are not finite")


def stretches(rows: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """The rows in float64, some at a time, in their order.

    Each part is a copy, to be worked on in place, and is written over by the next: fresh memory for each costs more
    than the copy does.
    """
    most = max(_FEWEST, STRETCH // rows.shape[1])
    buffer = np.empty((min(most, len(rows)), rows.shape[1]))
    for start in range(0, len(rows), most):
        part = buffer[: min(most, len(rows) - start)]
        part[...] = rows[start : start + most]
        yield part
