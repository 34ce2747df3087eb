"""How the client talks: calls that are tried again, streams that are gone on with, and a watch on silence.

Bytes and waiting alone; what to send, what came and when to give up is decided by the exchanges it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from fount.client.status import error_of
from fount.errors import Cancelled, DeadlineExceeded, FountError
from fount.retry import Patience, RetryPolicy

__all__ = ["Calling", "Exchange"]

_Reply = TypeVar("_Reply")
_Response = TypeVar("_Response")
_Response_contra = TypeVar("_Response_contra", contravariant=True)
_Piece = TypeVar("_Piece")
_Piece_co = TypeVar("_Piece_co", covariant=True)


class Exchange(Protocol[_Response_contra, _Piece_co]):
    """A call that answers with a stream, without its I/O."""

    @property
    def patience(self) -> Patience:
        """The time and attempts left."""

    def receive(self, response: _Response_contra, /) -> _Piece_co | None:
        """Take one message in, and give the piece it completes."""

    def finish(self) -> None:
        """Take note that the stream ended well."""

    def recover(self, error: FountError) -> float | None:
        """Seconds to wait before the next attempt, or None when all of it came."""


class _Call(Protocol):
    """A stream of messages being read."""

    def __next__(self) -> Any: ...
    def cancel(self) -> bool: ...


class Calling:
    """The calls of one client to one server.

    Attributes:
        closed: set once the client was closed.
    """

    def __init__(self, server: str, timeout_s: float | None, retry: RetryPolicy) -> None:
        self._server, self._timeout_s, self._retry = server, timeout_s, retry
        self.closed = threading.Event()

    def patience(self, *, between_messages: bool = False) -> Patience:
        """The time and the attempts of one question, from now on."""
        return Patience(self._timeout_s, self._retry, between_messages=between_messages)

    def ask(self, call: Callable[..., _Reply], request: object) -> _Reply:
        """Call for one message.

        Raises:
            FountError: no answer came.
        """
        patience = self.patience()
        delay_s = 0.0
        while True:
            self.pause(delay_s)
            try:
                return call(request, timeout=patience.call_timeout_s())
            except grpc.RpcError as error:
                delay_s = patience.delay_s(error_of(error, self._server))

    def pause(self, delay_s: float) -> None:
        """Wait.

        Raises:
            Cancelled: the client was closed.
        """
        if self.closed.wait(delay_s):
            raise Cancelled("The client was closed.")

    def follow(
        self,
        open_call: Callable[[float | None], Any],
        exchange: Exchange[Any, _Piece],
        before_read: Callable[[], object] | None = None,
    ) -> Generator[_Piece]:
        """Read a stream to its end, over as many calls as it takes; closing the iterator cancels the call.

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
            self.pause(delay_s)
            call = open_call(patience.call_timeout_s())
            watch: _Watch[Any] = _Watch(call, patience)
            try:
                for response in watch.messages(before_read):
                    piece = exchange.receive(response)
                    if piece is not None:
                        yield piece
                    patience.touch()
                exchange.finish()
                return
            except grpc.RpcError as error:
                delay_s = exchange.recover(watch.expired or error_of(error, self._server))
            finally:
                call.cancel()
                watch.stop()


class _Watch(Generic[_Response]):
    """Cancels a call whose next message does not come in time, for which gRPC has no timeout of its own.

    Attributes:
        expired: the error to raise once it did so.
    """

    def __init__(self, call: _Call, patience: Patience) -> None:
        self._call, self._patience = call, patience
        self._waiting, self._stopped = False, threading.Event()
        self.expired: DeadlineExceeded | None = None

    def messages(self, before_read: Callable[[], object] | None) -> Iterator[_Response]:
        """Read the call's messages; time counts only while one is waited for.

        Raises:
            DeadlineExceeded: there was no time to begin with.
        """
        if (timeout_s := self._patience.message_timeout_s()) is not None:
            threading.Thread(target=self._watch, args=(timeout_s,), name="fount-watch", daemon=True).start()
        while True:
            if before_read is not None:
                before_read()
                self._patience.touch()
            self._waiting = True
            try:
                response = next(self._call)
            except StopIteration:
                return
            self._waiting = False
            yield response

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _watch(self, timeout_s: float) -> None:
        wait_s = timeout_s
        # A wait is never longer than the time allowed, so an end that was put off is met exactly by the wait after.
        while not self._stopped.wait(wait_s):
            try:
                wait_s = timeout_s if not self._waiting else self._patience.message_timeout_s() or timeout_s
            except DeadlineExceeded as error:
                self.expired = error
                self._call.cancel()
                return
