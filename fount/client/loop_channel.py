"""The channel of an asyncio client: opened in the event loop that calls, and again in the next one.

A channel of gRPC belongs to the event loop it was opened in. A client may be made before there is one, or be used in
one `asyncio.run` after the other, as notebooks and tests do, so its channel is opened by its first call in each loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio

from fount.client.channel import options_for
from fount.errors import Cancelled

__all__ = ["LoopChannel"]


class LoopChannel:
    """What stubs need of a `grpc.aio.Channel`, for one event loop at a time."""

    def __init__(self, server: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Open nothing yet.

        Args:
            server: the target.
            credentials: for TLS; None: the channel is not encrypted.
        """
        self._server, self._credentials = server, credentials
        self._opened: tuple[asyncio.AbstractEventLoop, grpc.aio.Channel] | None = None
        self._methods: dict[str, Callable[..., Any]] = {}  # of the channel that is open
        self._closed = False

    @property
    def for_stubs(self) -> grpc.aio.Channel:
        """This channel, as the type that stubs demand; they use the three methods that follow alone."""
        return cast("grpc.aio.Channel", self)

    def unary_unary(self, method: str, *settings: Any, **options: Any) -> Callable[..., Any]:
        """Return a call as `grpc.aio.Channel` does."""
        return partial(self._call, "unary_unary", method, settings, options)

    def unary_stream(self, method: str, *settings: Any, **options: Any) -> Callable[..., Any]:
        """Return a call as `grpc.aio.Channel` does."""
        return partial(self._call, "unary_stream", method, settings, options)

    def stream_stream(self, method: str, *settings: Any, **options: Any) -> Callable[..., Any]:
        """Return a call as `grpc.aio.Channel` does."""
        return partial(self._call, "stream_stream", method, settings, options)

    def is_connected(self) -> bool:
        """Whether the server has answered a connection that is still open."""
        return self._opened is not None and self._opened[1].get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Close the channel; calls in progress end, and later ones are refused."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is None:
            return
        loop, channel = opened
        if loop is asyncio.get_running_loop():
            await channel.close()
        elif loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(channel.close(), loop))
        # The channel of a loop that ended has no calls; it closes when it is forgotten.

    def _call(
        self, kind: str, name: str, settings: tuple[Any, ...], options: dict[str, Any], request: Any, **call: Any
    ) -> Any:
        channel = self._channel()
        if (method := self._methods.get(name)) is None:
            method = self._methods[name] = getattr(channel, kind)(name, *settings, **options)
        return method(request, **call)

    def _channel(self) -> grpc.aio.Channel:
        """Return the channel of the running event loop.

        Raises:
            Cancelled: the client was closed.
            RuntimeError: the client is in use in another event loop.
        """
        if self._closed:
            raise Cancelled("The client was closed.")
        running = asyncio.get_running_loop()
        if self._opened is not None:
            loop, channel = self._opened
            if loop is running:
                return channel
            if loop.is_running():
                raise RuntimeError("This client is in use in another event loop; make a client in each event loop")
        channel = (
            grpc.aio.insecure_channel(self._server, options_for(self._server))
            if self._credentials is None
            else grpc.aio.secure_channel(self._server, self._credentials, options_for(self._server))
        )
        self._opened, self._methods = (running, channel), {}
        return channel
