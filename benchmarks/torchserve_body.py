"""The request body of TorchServe alone: seed, index and label of one sample.

This file is also packed into the handler's archive, so it imports the standard library alone.
"""

from __future__ import annotations

import struct

__all__ = ["body_of", "read_body"]

_FORMAT = struct.Struct("<QQI")


def body_of(seed: int, index: int, label: int) -> bytes:
    """Encode one request."""
    return _FORMAT.pack(seed, index, label)


def read_body(body: bytes) -> tuple[int, int, int]:
    """Decode one request: seed, index, label."""
    seed, index, label = _FORMAT.unpack(body)
    return seed, index, label
