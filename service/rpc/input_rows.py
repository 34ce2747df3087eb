"""Read `InputRows`, the rows that a client sends: element type, size and values are checked, each error reported."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.v1 import model_pb2, sampling_pb2
from service.domain import Dtype
from service.rpc.fields import Violations

__all__ = ["MOST_TEXTS", "ROWS_BYTES", "read_texts", "read_values", "text_problem"]

ROWS_BYTES = 1 << 20
"""The most bytes of several rows."""

MOST_TEXTS = 4096
"""The most texts of one message: each is filled up to the longest text of its model."""

_SLACK = 1e-5  # of the range's width: the tolerance for rounding at its ends, as in workers


def read_values(
    message: sampling_pb2.InputRows,
    field: str,
    *,
    shape: tuple[int, ...],
    takes_bytes: bool,
    value_range: tuple[float, float] | None,
    wrong: Violations,
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Read the values of rows; everything wrong with them is a violation.

    Args:
        message: the rows.
        field: its path in the request.
        shape: of a row.
        takes_bytes: whether rows may be uint8, which they are where the message does not say.
        value_range: of floats; None: any finite ones.
        wrong: appended to.

    Returns:
        (count, *shape) of the message's element type, read-only; no rows where their size is wrong.
    """
    before, count, given = len(wrong), message.count, int(message.dtype)
    if message.lengths:
        wrong.add(f"{field}.lengths", "are of texts, and these rows are none; leave them out")
    dtype = Dtype.UINT8 if takes_bytes else Dtype.FLOAT32
    if given in ((Dtype.UINT8, Dtype.FLOAT32) if takes_bytes else (Dtype.FLOAT32,)):
        dtype = Dtype(given)
    elif given != model_pb2.DTYPE_UNSPECIFIED:
        allowed = "DTYPE_UINT8 or DTYPE_FLOAT32" if takes_bytes else "DTYPE_FLOAT32"
        wrong.add(f"{field}.dtype", f"must be {allowed}, got {given}")
    if not count:
        wrong.add(f"{field}.count", "must be at least 1")
    data = message.data  # read once: each access copies
    expected = count * math.prod(shape) * dtype.numpy.itemsize
    if len(data) != expected:
        what = " · ".join(map(str, (count, *shape)))
        size = f"{what} {dtype.name.lower()} values are {expected} bytes, got {len(data)}"
        wrong.add(f"{field}.data", f"must hold count rows of {_format(shape)}: {size}")
    if count > 1 and len(data) > ROWS_BYTES:
        description = f"must hold at most {ROWS_BYTES} bytes, or one row, got {len(data)}; send fewer rows"
        wrong.add(f"{field}.data", description)
    if len(wrong) > before:
        return np.zeros((0, *shape), dtype.numpy)
    rows: NDArray[Any] = np.frombuffer(data, dtype.numpy).reshape(count, *shape)  # (bytes,) -> (n, ...)
    if dtype is Dtype.FLOAT32:
        _check_floats(rows, value_range, f"{field}.data", wrong)
    return rows


def read_texts(message: sampling_pb2.InputRows, field: str, most: int, wrong: Violations) -> NDArray[np.uint8]:
    """Read texts; everything wrong with them is a violation.

    Returns:
        (count, most) uint8, filled up with zeros; no rows where something is wrong.
    """
    before, lengths, data = len(wrong), np.asarray(message.lengths, np.int64), message.data
    if message.dtype not in (model_pb2.DTYPE_UNSPECIFIED, model_pb2.DTYPE_UINT8):
        wrong.add(f"{field}.dtype", f"must be DTYPE_UINT8, got {int(message.dtype)}")
    if not 1 <= message.count <= MOST_TEXTS:
        wrong.add(f"{field}.count", f"must be 1 to {MOST_TEXTS} texts a message, got {message.count}")
    if len(lengths) != message.count:
        wrong.add(f"{field}.lengths", f"must hold one a text: count is {message.count}, got {len(lengths)}")
    for row in np.flatnonzero((lengths < 1) | (lengths > most))[:3].tolist():
        wrong.add(f"{field}.lengths[{row}]", f"must be 1 to {most} bytes, got {lengths[row]}")
    if lengths.sum() != len(data):
        wrong.add(f"{field}.data", f"must hold the texts' {lengths.sum()} bytes, got {len(data)}")
    if message.count > 1 and len(data) > ROWS_BYTES:
        wrong.add(f"{field}.data", f"must hold at most {ROWS_BYTES} bytes, or one row, got {len(data)}; send fewer")
    if len(wrong) > before:
        return np.zeros((0, most), np.uint8)
    ends = np.cumsum(lengths).tolist()
    texts = [data[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
    for row, text in enumerate(texts):
        if problem := text_problem(text):
            wrong.add(f"{field}.data", f"text {row} {problem}")
            return np.zeros((0, most), np.uint8)
    return np.frombuffer(b"".join(text.ljust(most, b"\0") for text in texts), np.uint8).reshape(-1, most)


def text_problem(text: bytes) -> str:
    """Return what prevents bytes from being a text, with the remedy; empty when nothing does."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 from byte {error.start} on; encode it as UTF-8"
    return f"has a zero byte at {text.index(0)}, which ends a text; remove it" if 0 in text else ""


def _format(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) + (" numbers" if len(shape) == 1 else "")


def _check_floats(
    rows: NDArray[np.float32], value_range: tuple[float, float] | None, field: str, wrong: Violations
) -> None:
    """Append a violation for the first row that is not finite, or not within the range."""
    flat = rows.reshape(len(rows), -1)
    bad = ~np.isfinite(flat)
    remedy = "send finite floats"
    if value_range is not None:
        low, high = value_range
        slack = _SLACK * (high - low)
        bad |= ~((flat >= low - slack) & (flat <= high + slack))  # NaN as well
        remedy = f"send floats within the model's value range, {low:g} to {high:g}"
    if bad.any():
        row, place = np.argwhere(bad)[0]
        wrong.add(field, f"row {row} has {flat[row, place]:g}; {remedy}")
