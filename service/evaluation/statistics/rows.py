"""Rows of features: types of arrays, a check, and iteration in float64 without converting all rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Features", "Float64s", "Int64s", "check_rows", "float64_chunks"]

Features = NDArray[np.floating[Any]]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CHUNK_NUMBERS = 2**17  # converted to float64 at a time: 1 MiB stays in a processor's cache
_FEWEST_CHUNK_ROWS = 256


def check_rows(rows: NDArray[Any], least: int = 1) -> None:
    """Check that a statistic can be computed from rows.

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


def float64_chunks(rows: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Yield the rows (n, d) in float64, chunk by chunk, in order.

    Each chunk may be modified in place. It is overwritten by the next one: fresh memory for each costs more than the
    copy does.
    """
    most = max(_FEWEST_CHUNK_ROWS, _CHUNK_NUMBERS // rows.shape[1])
    buffer = np.empty((min(most, len(rows)), rows.shape[1]))
    for start in range(0, len(rows), most):
        chunk = buffer[: min(most, len(rows) - start)]
        chunk[...] = rows[start : start + most]
        yield chunk
