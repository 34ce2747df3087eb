"""The channel from a client to a gateway: default address and gRPC options."""

from __future__ import annotations

import os

__all__ = ["CHANNEL_OPTIONS", "DEFAULT_SERVER", "default_server"]

DEFAULT_SERVER = "127.0.0.1:50051"
"""The address at which `fount serve` listens by default."""

_MAX_MESSAGE_BYTES = 64 * 2**20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # the client retries by itself, because only it knows what is safe to repeat
)
"""The options of every channel to a gateway."""


def default_server() -> str:
    """Return the address in the environment variable FOUNT_SERVER, or `DEFAULT_SERVER`."""
    return os.environ.get("FOUNT_SERVER") or DEFAULT_SERVER
