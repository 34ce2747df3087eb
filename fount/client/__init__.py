"""The gRPC client: `sync.Client`, and `aio.Client` for asyncio.

Python arguments enter; frozen values and arrays leave. Calls are retried and broken streams resumed here.
"""

from fount.client.sync import Client

__all__ = ["Client"]
