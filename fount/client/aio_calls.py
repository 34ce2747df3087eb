"""How the client for asyncio talks: `fount.client.calls` with async and await.

Bytes and waiting alone; what to send, what came and when to give up is decided by the exchanges it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from fount.client.calls import Exchange
from fount.client.status import error_of
from fount.errors import Cancelled
from fount.retry import Patience, RetryPolicy

__all__ = ["AioCall", "AioCalling", "tell_own_cancelling"]

_Reply = TypeVar("_Reply")
_Piece = TypeVar("_Piece")
AioCall = grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.StreamStreamCall[Any, Any]
"""A call that answers with a stream."""


class AioCalling:
    """The calls of one client to one server, within one event loop."""

    def __init__(self, server: str, timeout_s: float | None, retry: RetryPolicy) -> None:
        self._server, self._timeout_s, self._retry = server, timeout_s, retry

    def patience(self, *, between_messages: bool = False) -> Patience:
        """The time and the attempts of one question, from now on."""
        return Patience(self._timeout_s, self._retry, between_messages=between_messages)

    async def ask(self, call: Callable[..., Awaitable[_Reply]], request: object) -> _Reply:
        """Call for one message.

        Raises:
            FountError: no answer came.
        """
        patience = self.patience()
        while True:
            try:
                return await call(request, timeout=patience.call_timeout_s())
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(patience.delay_s(error_of(error, self._server)))

    async def follow(
        self,
        open_call: Callable[[float | None], AioCall],
        exchange: Exchange[Any, _Piece],
        before_read: Callable[[], Awaitable[object]] | None = None,
    ) -> AsyncGenerator[_Piece]:
        """Read a stream to its end, over as many calls as it takes; closing the generator cancels the call.

        Args:
            open_call: begins an attempt with a timeout in seconds, and gives the call.
            exchange: what came, and when to give up.
            before_read: is called before each message is waited for.

        Raises:
            FountError: the rest did not come.
        """
        delay_s: float | None = 0.0
        patience = exchange.patience
        patience.touch()
        while delay_s is not None:
            await asyncio.sleep(delay_s)
            call = open_call(patience.call_timeout_s())
            try:
                while True:
                    if before_read is not None:
                        await before_read()
                        patience.touch()
                    if (response := await _read(call, patience)) is None:
                        break
                    piece = exchange.receive(response)
                    if piece is not None:
                        yield piece
                    patience.touch()
                exchange.finish()
                return
            except grpc.aio.AioRpcError as error:
                delay_s = exchange.recover(error_of(error, self._server))
            finally:
                call.cancel()


async def _read(call: AioCall, patience: Patience) -> Any:
    """Read the next message in the time that is left for it; None at the end of the stream."""
    try:
        async with asyncio.timeout(patience.message_timeout_s()):
            response = await call.read()
    except TimeoutError as error:
        raise patience.expired() from error
    except asyncio.CancelledError as error:
        tell_own_cancelling(error)
        raise Cancelled(f"The server cancelled the call: {await call.details()}") from error
    return None if response is grpc.aio.EOF else response


def tell_own_cancelling(error: asyncio.CancelledError) -> None:
    """Raise it again when it is the caller's task that is cancelled, rather than the call."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
