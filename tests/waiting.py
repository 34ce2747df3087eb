"""Waiting for conditions in asynchronous tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until", "until_constant"]


async def until(condition: Callable[[], object], timeout_s: float = 5) -> None:
    """Wait until a condition holds, or fail with TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def until_constant(value: Callable[[], int], quiet_s: float = 0.5, timeout_s: float = 20) -> int:
    """Wait until a value has not changed for a while, and return it."""
    async with asyncio.timeout(timeout_s):
        before = None
        while (now := value()) != before:
            before = now
            await asyncio.sleep(quiet_s)
    return now
