"""Between a caller's own rows and the stream they are sent by: rows are taken only as an exchange has room for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue
from typing import Any

from fount.augmentation.augment import AugmentExchange, cut_rows
from fount.v1 import augmentation_pb2

__all__ = ["AsyncFeed", "Feed"]

_Request = augmentation_pb2.AugmentRequest


class Feed:
    """Takes items in the thread that reads the variants; gRPC's own thread only waits for what is due to be sent."""

    def __init__(self, exchange: AugmentExchange, items: Iterator[Any]) -> None:
        self._exchange = exchange
        self._messages = (message for item in items for message in cut_rows(item))
        self._outbox: SimpleQueue[_Request | None] = SimpleQueue()
        self._is_exhausted = self._is_open = False

    def fill(self) -> bool:
        """Send as much as there is room for; false when there is not a single row."""
        while self._exchange.has_room and not self._is_exhausted:
            message = next(self._messages, None)
            self._is_exhausted = message is None
            request = None if message is None else self._exchange.send(*message)
            if self._is_open:
                self._outbox.put(request)
        return self._exchange.has_rows

    def requests(self) -> Iterator[_Request]:
        """The messages of a new attempt."""
        self.close()
        self._outbox, self._is_open = SimpleQueue(), True
        for request in self._exchange.begin():
            self._outbox.put(request)
        if self._is_exhausted:
            self._outbox.put(None)
        return iter(self._outbox.get, None)

    def close(self) -> None:
        """Let gRPC's thread go, which may be waiting."""
        self._outbox.put(None)


class AsyncFeed:
    """The same within an event loop; items may come from an async iterator too."""

    def __init__(self, exchange: AugmentExchange, items: Iterator[Any] | AsyncIterator[Any]) -> None:
        self._exchange = exchange
        self._messages = _messages_of(items)
        self._outbox: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._is_exhausted = self._is_open = False

    async def fill(self) -> bool:
        """Send as much as there is room for; false when there is not a single row."""
        while self._exchange.has_room and not self._is_exhausted:
            message = await anext(self._messages, None)
            self._is_exhausted = message is None
            request = None if message is None else self._exchange.send(*message)
            if self._is_open:
                self._outbox.put_nowait(request)
        return self._exchange.has_rows

    async def requests(self) -> AsyncIterator[_Request]:
        """The messages of a new attempt."""
        outbox: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._outbox, self._is_open = outbox, True
        for request in self._exchange.begin():
            outbox.put_nowait(request)
        if self._is_exhausted:
            outbox.put_nowait(None)
        while (due := await outbox.get()) is not None:
            yield due


async def _messages_of(
    items: Iterator[Any] | AsyncIterator[Any],
) -> AsyncIterator[tuple[augmentation_pb2.AugmentRows, tuple[int, ...]]]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            for message in cut_rows(item):
                yield message
    else:
        for item in items:
            for message in cut_rows(item):
                yield message
