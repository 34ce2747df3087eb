"""Calls of the clients: unary calls that are retried, and streams that are resumed, synchronous and for asyncio.

Sends, receives and waits, and nothing else: a stream's own class builds the request of each attempt and checks what is
received, and `fount.retry` decides whether to repeat a call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from fount.augmentation.augment import AioFeed, Feed
from fount.client.channel import proxy_note
from fount.client.loop_channel import LoopChannel
from fount.client.status import error_of
from fount.errors import Cancelled, DeadlineExceeded, FountError, NoServer
from fount.retry import RetryPolicy, RetryState

__all__ = ["AioCalls", "Calls"]

_STATE_S = 1.0  # within which gRPC reports that a channel is connected, also on a busy machine

_Reply = TypeVar("_Reply")
_Item = TypeVar("_Item")
_Item_co = TypeVar("_Item_co", covariant=True)


class _Stream(Protocol[_Item_co]):
    """The state of a streaming call over all its attempts, without I/O, as `fount.sampling.stream.SampleStream`.

    `begin` returns the request of an attempt, `receive` the item that a message completes. `finish` checks that a
    stream that ended was complete; `recover` returns the seconds until the next attempt, None if it was complete.
    """

    @property
    def retry(self) -> RetryState: ...
    def begin(self) -> Any: ...
    def receive(self, response: Any, /) -> _Item_co | None: ...
    def finish(self) -> None: ...
    def recover(self, error: FountError) -> float | None: ...


class _CallSettings:
    def __init__(
        self, server: str, timeout_s: float | None, policy: RetryPolicy, is_connected: Callable[[], bool]
    ) -> None:
        self._server, self._timeout_s, self._policy = server, timeout_s, policy
        self._is_connected = is_connected

    def retry_state(self, *, between_messages: bool = False) -> RetryState:
        """Start the time of one call."""
        return RetryState(self._timeout_s, self._policy, between_messages=between_messages)

    def _named(self, error: FountError) -> FountError:
        """Return the error of an attempt; a timeout without a connection is that of an absent server."""
        if not isinstance(error, DeadlineExceeded) or self._is_connected():
            return error
        absent = NoServer.within(self._timeout_s or 0.0, self._server, proxy_note(self._server))
        absent.__cause__ = error
        return absent


class Calls(_CallSettings):
    """The calls of one synchronous client to one server, on its channel."""

    def __init__(self, server: str, timeout_s: float | None, policy: RetryPolicy, channel: grpc.Channel) -> None:
        super().__init__(server, timeout_s, policy, partial(_is_connected, channel))
        self._closed, self._process = threading.Event(), os.getpid()

    def close(self) -> None:
        """End waits between two attempts with `Cancelled`, in every thread."""
        self._closed.set()

    def unary(self, call: Callable[..., _Reply], request: object, retry: RetryState | None = None) -> _Reply:
        """Send one request and return its reply, within the time and attempts of `retry`; None: those of a new call."""
        retry, delay_s = retry or self.retry_state(), 0.0
        while True:
            self._wait(delay_s)
            try:
                return call(request, timeout=retry.call_timeout_s())
            except grpc.RpcError as error:
                delay_s = retry.delay_s(self._named(error_of(error, self._server)))

    def pages(self, call: Callable[..., Any], request: Any, field: str) -> Iterator[Any]:
        """Request every page of a list, and yield the entries of the reply's field."""
        while True:
            reply = self.unary(call, request)
            yield from getattr(reply, field)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    def stream(self, call: Callable[..., Any], stream: _Stream[_Item], feed: Feed | None = None) -> Generator[_Item]:
        """Read a stream to its end, over as many attempts as needed; closing the generator cancels the call.

        Args:
            call: the stub's method.
            stream: builds requests and checks messages.
            feed: the requests of a call that streams in both directions; filled before each message is read.
        """
        delay_s: float | None = 0.0
        stream.retry.restart_message_timer()
        while delay_s is not None:
            self._wait(delay_s)
            timeout_s = stream.retry.call_timeout_s()
            opened = call(stream.begin() if feed is None else feed.requests(), timeout=timeout_s)
            watchdog = _Watchdog(opened, stream.retry)
            try:
                for response in watchdog.messages(feed):
                    item = stream.receive(response)
                    if item is not None:
                        yield item
                    stream.retry.restart_message_timer()
                stream.finish()
                return
            except grpc.RpcError as error:
                delay_s = stream.recover(self._named(watchdog.timed_out or error_of(error, self._server)))
            finally:
                opened.cancel()
                watchdog.stop()

    def _wait(self, delay_s: float) -> None:
        if os.getpid() != self._process:  # threads of gRPC are not there after a fork, and streams would hang
            raise RuntimeError("This client was made before the process was forked; make a client in each process")
        if self._closed.wait(delay_s) if delay_s else self._closed.is_set():
            raise Cancelled("The client was closed.")


def _is_connected(channel: grpc.Channel) -> bool:
    ready = grpc.channel_ready_future(channel)
    try:
        ready.result(timeout=_STATE_S)
    except grpc.FutureTimeoutError:
        return False
    finally:
        ready.cancel()
    return True


class _Watchdog:
    """Cancels a call whose next message is late, for which gRPC has no timeout; `timed_out` is then the error."""

    def __init__(self, call: Any, retry: RetryState) -> None:
        self._call, self._retry = call, retry
        self._waiting, self._stopped = False, threading.Event()
        self.timed_out: DeadlineExceeded | None = None

    def messages(self, feed: Feed | None) -> Iterator[Any]:
        """Read the call's messages; time counts only while waiting for one."""
        if (timeout_s := self._retry.message_timeout_s()) is not None:
            threading.Thread(target=self._watch, args=(timeout_s,), name="fount-watch", daemon=True).start()
        while True:
            if feed is not None:
                feed.fill()
                self._retry.restart_message_timer()
            self._waiting = True
            try:
                response = next(self._call)
            except StopIteration:
                return
            self._waiting = False
            yield response

    def stop(self) -> None:
        """End the thread that watches."""
        self._stopped.set()

    def _watch(self, timeout_s: float) -> None:
        wait_s = timeout_s
        # No wait is longer than the timeout, so a deadline that moved is met exactly by the wait that follows.
        while not self._stopped.wait(wait_s):
            try:
                wait_s = timeout_s if not self._waiting else self._retry.message_timeout_s() or timeout_s
            except DeadlineExceeded as error:
                self.timed_out = error
                self._call.cancel()
                return


class AioCalls(_CallSettings):
    """The calls of one asyncio client to one server, on its channel; methods as those of `Calls`."""

    def __init__(self, server: str, timeout_s: float | None, policy: RetryPolicy, channel: LoopChannel) -> None:
        super().__init__(server, timeout_s, policy, channel.is_connected)

    async def unary(
        self, call: Callable[..., Awaitable[_Reply]], request: object, retry: RetryState | None = None
    ) -> _Reply:
        """Send one request and return its reply; see `Calls.unary`."""
        retry = retry or self.retry_state()
        while True:
            try:
                return await call(request, timeout=retry.call_timeout_s())
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(retry.delay_s(self._named(error_of(error, self._server))))
            except asyncio.CancelledError as error:
                _reraise_if_task_cancelled(error)
                raise Cancelled("The client was closed.") from error

    async def pages(self, call: Callable[..., Awaitable[Any]], request: Any, field: str) -> AsyncIterator[Any]:
        """Request every page of a list, and yield the entries of the reply's field; see `Calls.pages`."""
        while True:
            reply = await self.unary(call, request)
            for entry in getattr(reply, field):
                yield entry
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def stream(
        self, call: Callable[..., Any], stream: _Stream[_Item], feed: AioFeed | None = None
    ) -> AsyncGenerator[_Item]:
        """Read a stream to its end, over as many attempts as needed; see `Calls.stream`."""
        delay_s: float | None = 0.0
        stream.retry.restart_message_timer()
        while delay_s is not None:
            await asyncio.sleep(delay_s)
            timeout_s = stream.retry.call_timeout_s()
            opened = call(stream.begin() if feed is None else feed.requests(), timeout=timeout_s)
            try:
                while True:
                    if feed is not None:
                        await feed.fill()
                        stream.retry.restart_message_timer()
                    if (response := await self._read(opened, stream.retry)) is None:
                        break
                    item = stream.receive(response)
                    if item is not None:
                        yield item
                    stream.retry.restart_message_timer()
                stream.finish()
                return
            except grpc.aio.AioRpcError as error:
                delay_s = stream.recover(self._named(error_of(error, self._server)))
            finally:
                opened.cancel()

    async def _read(self, call: Any, retry: RetryState) -> Any:
        """Read the next message within the time left for it; None at the end of the stream."""
        try:
            async with asyncio.timeout(retry.message_timeout_s()):
                response = await call.read()
        except TimeoutError as error:
            raise self._named(retry.timeout_error()) from error
        except asyncio.CancelledError as error:
            _reraise_if_task_cancelled(error)
            raise Cancelled(f"The server cancelled the call: {await call.details()}") from error
        return None if response is grpc.aio.EOF else response


def _reraise_if_task_cancelled(error: asyncio.CancelledError) -> None:
    """Raise the error again when the caller's task is cancelled, rather than the call."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
