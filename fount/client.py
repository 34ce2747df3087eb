"""The client: samples as arrays, model cards as values, errors a person can act on.

It moves bytes and waits; everything else (requests, checks, resuming, retries) is shared with `fount.aio`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar, Unpack, cast

import grpc

from fount.errors import Cancelled, DeadlineExceeded
from fount.exchange import CHANNEL_OPTIONS, Patience, RetryPolicy, SampleExchange, default_server
from fount.models import ModelInfo, model_info
from fount.requests import SampleQuery, model_ref, refuse_files
from fount.sampling import Chunk, SampleCollector, Samples
from fount.statuses import error_of
from fount.v1 import model_pb2, model_pb2_grpc, sampling_pb2, sampling_pb2_grpc

__all__ = ["Client"]

_Reply = TypeVar("_Reply")


class _Call(Protocol):
    """A stream of messages being read."""

    def __next__(self) -> sampling_pb2.SampleResponse: ...
    def cancel(self) -> bool: ...


class Client:
    """A connection to one gateway; safe to share between threads, not with a forked process.

    Example:
        >>> with Client() as client:
        ...     sevens = client.sample("digits-cvae", label=7, count=16, seed=1)
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout_s: float | None = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Open a channel; it connects with the first call.

        Args:
            server: "host:port"; unset, FOUNT_SERVER or 127.0.0.1:50051.
            timeout_s: seconds for a whole call, and for `stream` between two chunks. None: no limit.
            credentials: for TLS; unset, the channel is not encrypted.
            retry: how patiently a server that does not answer is tried again.
        """
        self.server = server or default_server()
        self._timeout_s, self._retry = timeout_s, retry or RetryPolicy()
        self._closed = threading.Event()
        self._channel = (
            grpc.insecure_channel(self.server, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(self.server, credentials, CHANNEL_OPTIONS)
        )
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._sampling = sampling_pb2_grpc.SamplingServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel, from any thread; calls in progress, and waits between two, end with Cancelled."""
        self._closed.set()
        self._channel.close()

    # Four methods take one query, so it is one TypedDict rather than sixteen arguments written four times.
    def sample(self, model: str, **query: Unpack[SampleQuery]) -> Samples:
        """Draw samples into one array.

        Args:
            model: "name", "name:version", or both with "@" and the digest, as replies name it.
            **query: what to draw; see `fount.requests.SampleQuery`.

        Returns:
            (N, H, W, C) uint8 or float32 with labels, seed, model and numerics.

        Raises:
            FountError: it did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        refuse_files(query)
        exchange = SampleExchange(model, query, Patience(self._timeout_s, self._retry))
        collector = SampleCollector(exchange.count)
        if exchange.is_few:
            for chunk in self._ask_once(exchange):
                collector.add(chunk)
        if not exchange.is_complete:
            for chunk in self._chunks(exchange):
                collector.add(chunk)
        return collector.finish()

    def stream(self, model: str, **query: Unpack[SampleQuery]) -> Iterator[Chunk]:
        """Draw samples chunk by chunk, in order, in constant memory; a broken stream is resumed.

        Closing the iterator cancels the call. With encoding "png", chunks hold `files` instead of an array. Samples
        that failed are in a chunk's `errors`.

        Args:
            model: as in `sample`.
            **query: as in `sample`.

        Raises:
            FountError: the rest did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        return self._chunks(SampleExchange(model, query, Patience(self._timeout_s, self._retry, between_messages=True)))

    def models(self) -> list[ModelInfo]:
        """List every version served, by name and then version.

        Raises:
            FountError: no answer came.
        """
        models: list[ModelInfo] = []
        request = model_pb2.ListModelsRequest(page_size=1000)
        while True:
            reply = self._ask(self._models.ListModels, request)
            models += map(model_info, reply.models)
            if not reply.next_page_token:
                return models
            request.page_token = reply.next_page_token

    def model(self, model: str, *, digest: str | None = None) -> ModelInfo:
        """Look one model up, named as in `sample`.

        Raises:
            NotFound: it is not served.
            FountError: no answer came.
        """
        request = model_pb2.GetModelRequest(model=model_ref(model, digest))
        return model_info(self._ask(self._models.GetModel, request).model)

    def _ask(self, call: Callable[..., _Reply], request: object) -> _Reply:
        patience = Patience(self._timeout_s, self._retry)
        delay_s = 0.0
        while True:
            self._pause(delay_s)
            try:
                return call(request, timeout=patience.call_timeout_s())
            except grpc.RpcError as error:
                delay_s = patience.delay_s(error_of(error, self.server))

    def _pause(self, delay_s: float) -> None:
        if self._closed.wait(delay_s):
            raise Cancelled("The client was closed.")

    def _ask_once(self, exchange: SampleExchange) -> list[Chunk]:
        """The first samples, by one message each way; none from a server that knows streams alone."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            self._pause(delay_s)
            try:
                timeout_s = exchange.patience.call_timeout_s()
                return exchange.receive_once(self._sampling.SampleOnce(exchange.begin_once(), timeout=timeout_s))
            except grpc.RpcError as error:
                if cast(grpc.Call, error).code() is grpc.StatusCode.UNIMPLEMENTED:
                    break
                delay_s = exchange.recover(error_of(error, self.server))
        return []

    def _chunks(self, exchange: SampleExchange) -> Iterator[Chunk]:
        delay_s: float | None = 0.0
        patience = exchange.patience
        patience.touch()
        while delay_s is not None:
            self._pause(delay_s)
            call = self._sampling.Sample(exchange.begin(), timeout=patience.call_timeout_s())
            watch = _Watch(call, patience)
            try:
                for response in watch.messages():
                    chunk = exchange.receive(response)
                    if chunk is not None:
                        yield chunk
                    patience.touch()
                exchange.finish()
                return
            except grpc.RpcError as error:
                delay_s = exchange.recover(watch.expired or error_of(error, self.server))
            finally:
                call.cancel()
                watch.stop()


class _Watch:
    """Cancels a call whose next message does not come in time, for which gRPC has no timeout of its own.

    Attributes:
        expired: the error to raise once it did so.
    """

    def __init__(self, call: _Call, patience: Patience) -> None:
        self._call, self._patience = call, patience
        self._waiting, self._stopped = False, threading.Event()
        self.expired: DeadlineExceeded | None = None

    def messages(self) -> Iterator[sampling_pb2.SampleResponse]:
        """Read the call's messages; time counts only while one is waited for.

        Raises:
            DeadlineExceeded: there was no time to begin with.
        """
        if (timeout_s := self._patience.message_timeout_s()) is not None:
            threading.Thread(target=self._watch, args=(timeout_s,), name="fount-watch", daemon=True).start()
        while True:
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
