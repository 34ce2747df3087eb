"""What one call may hold, and what is said of an item that is refused.

A call is bounded as a whole, so that a worker's memory is; an item beyond the bounds is refused alone, before anything
of its size is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.rpc import code_pb2

from handlers.statuses import status_of

__all__ = ["MAX_CALL_BYTES", "MAX_CALL_ROWS", "Budget", "ItemError", "check_size"]

MAX_CALL_ROWS = 65_536
"""The most rows of one call, all items together."""

MAX_CALL_BYTES = 256 * 2**20
"""The most bytes of values, of states, or of images as floats, in one call, all items together."""


class ItemError(Exception):
    """An item cannot be done as it is. The message says what to change.

    Attributes:
        status: its answer.
    """

    def __init__(self, reason: str, message: str, code: int = code_pb2.INVALID_ARGUMENT) -> None:
        self.status = status_of(code, reason, message)
        super().__init__(message)


@dataclass(kw_only=True)
class Budget:
    """What one call may still hold; items that would break it are refused, those before them stand.

    Attributes:
        rows: how many rows more.
        size_bytes: how many bytes more.
        image_shape: (H, W, C) of the images that the call transforms; None before the first.
    """

    rows: int = MAX_CALL_ROWS
    size_bytes: int = MAX_CALL_BYTES
    image_shape: tuple[int, ...] | None = None

    def take(self, rows: int, size_bytes: int) -> None:
        """Reserve room for an item; last of all, so that one that is refused takes nothing from those after it.

        Raises:
            ItemError: the item is too large for what is left of this call.
        """
        if rows > self.rows or size_bytes > self.size_bytes:
            message = f"the call is full ({MAX_CALL_ROWS} rows, {MAX_CALL_BYTES} bytes); send the item in another"
            raise ItemError("CALL_TOO_LARGE", message, code_pb2.RESOURCE_EXHAUSTED)
        self.rows -= rows
        self.size_bytes -= size_bytes


def check_size(rows: int, size_bytes: int) -> None:
    """Refuse an item that no call holds, before anything of its size is made.

    Raises:
        ItemError: it is too large.
    """
    if rows > MAX_CALL_ROWS or size_bytes > MAX_CALL_BYTES:
        limits = f"an item has {MAX_CALL_ROWS} rows and {MAX_CALL_BYTES} bytes at most"
        raise ItemError("ITEM_TOO_LARGE", f"{limits}, this one {rows} rows and {size_bytes} bytes; cut it")
