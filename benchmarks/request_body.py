"""The request body of TorchServe alone and of the peers: the seed, first index and labels of some samples.

This file is also packed into TorchServe's archive, so it imports the standard library alone.
"""

from __future__ import annotations

import struct

__all__ = ["body_of", "read_body"]

_FORMAT = struct.Struct("<QQ")


def body_of(seed: int, start: int, labels: bytes) -> bytes:
    """Encode one request: label k, one byte, belongs to sample start + k."""
    return _FORMAT.pack(seed, start) + labels


def read_body(body: bytes) -> tuple[int, int, bytes]:
    """Decode one request: seed, first index, labels."""
    seed, start = _FORMAT.unpack_from(body)
    return seed, start, body[_FORMAT.size :]
