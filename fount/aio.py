"""The client for asyncio: `fount.client` with async and await.

It moves bytes and waits; everything else (requests, checks, resuming, retries) is shared with `fount.client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

import grpc
import grpc.aio

from fount.errors import Cancelled
from fount.exchange import CHANNEL_OPTIONS, Patience, RetryPolicy, SampleExchange, default_server
from fount.models import ModelInfo, model_info
from fount.requests import SampleQuery, model_ref, refuse_files
from fount.sampling import Chunk, SampleCollector, Samples
from fount.statuses import error_of
from fount.v1 import model_pb2, model_pb2_grpc, sampling_pb2, sampling_pb2_grpc

__all__ = ["Client"]

_Reply = TypeVar("_Reply")
_Call = grpc.aio.UnaryStreamCall[sampling_pb2.SampleRequest, sampling_pb2.SampleResponse]


class Client:
    """A connection to one gateway, used within one event loop.

    Example:
        >>> async with Client() as client:
        ...     sevens = await client.sample("digits-cvae", label=7, count=16, seed=1)
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout_s: float | None = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Open a channel, as `fount.client.Client` does; needs a running event loop."""
        self.server = server or default_server()
        self._timeout_s, self._retry = timeout_s, retry or RetryPolicy()
        self._channel = (
            grpc.aio.insecure_channel(self.server, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(self.server, credentials, CHANNEL_OPTIONS)
        )
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._sampling = sampling_pb2_grpc.SamplingServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        await self._channel.close()

    # Four methods take one query, so it is one TypedDict rather than sixteen arguments written four times.
    async def sample(self, model: str, **query: Unpack[SampleQuery]) -> Samples:
        """Draw samples into one array, as `fount.client.Client.sample` does.

        Args:
            model: "name", "name:version", or both with "@" and the digest.
            **query: what to draw; see `fount.requests.SampleQuery`.

        Raises:
            FountError: it did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        refuse_files(query)
        exchange = SampleExchange(model, query, Patience(self._timeout_s, self._retry))
        collector = SampleCollector(exchange.count)
        if exchange.is_few:
            for chunk in await self._ask_once(exchange):
                collector.add(chunk)
        if not exchange.is_complete:
            async with aclosing(self._chunks(exchange)) as chunks:
                async for chunk in chunks:
                    collector.add(chunk)
        return collector.finish()

    def stream(self, model: str, **query: Unpack[SampleQuery]) -> AsyncGenerator[Chunk, None]:
        """Draw samples chunk by chunk, as `fount.client.Client.stream` does.

        Leaving an `async for` early does not close an async generator at once: use `contextlib.aclosing`, and the
        call is cancelled there.

        Args:
            model: as in `sample`.
            **query: as in `sample`.

        Raises:
            FountError: the rest did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        return self._chunks(SampleExchange(model, query, Patience(self._timeout_s, self._retry, between_messages=True)))

    async def models(self) -> list[ModelInfo]:
        """List every version served, by name and then version.

        Raises:
            FountError: no answer came.
        """
        models: list[ModelInfo] = []
        request = model_pb2.ListModelsRequest(page_size=1000)
        while True:
            reply = await self._ask(self._models.ListModels, request)
            models += map(model_info, reply.models)
            if not reply.next_page_token:
                return models
            request.page_token = reply.next_page_token

    async def model(self, model: str, *, digest: str | None = None) -> ModelInfo:
        """Look one model up, named as in `sample`.

        Raises:
            NotFound: it is not served.
            FountError: no answer came.
        """
        request = model_pb2.GetModelRequest(model=model_ref(model, digest))
        return model_info((await self._ask(self._models.GetModel, request)).model)

    async def _ask(self, call: Callable[..., Awaitable[_Reply]], request: object) -> _Reply:
        patience = Patience(self._timeout_s, self._retry)
        while True:
            try:
                return await call(request, timeout=patience.call_timeout_s())
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(patience.delay_s(error_of(error, self.server)))

    async def _ask_once(self, exchange: SampleExchange) -> list[Chunk]:
        """The first samples, by one message each way; none from a server that knows streams alone."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            await asyncio.sleep(delay_s)
            try:
                timeout_s = exchange.patience.call_timeout_s()
                reply = await self._sampling.SampleOnce(exchange.begin_once(), timeout=timeout_s)
                return exchange.receive_once(reply)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    break
                delay_s = exchange.recover(error_of(error, self.server))
            except asyncio.CancelledError as error:
                _tell_own_cancelling(error)
                raise Cancelled("The client was closed.") from error
        return []

    async def _chunks(self, exchange: SampleExchange) -> AsyncGenerator[Chunk, None]:
        delay_s: float | None = 0.0
        patience = exchange.patience
        patience.touch()
        while delay_s is not None:
            await asyncio.sleep(delay_s)
            call = self._sampling.Sample(exchange.begin(), timeout=patience.call_timeout_s())
            try:
                while (response := await _read(call, patience)) is not None:
                    chunk = exchange.receive(response)
                    if chunk is not None:
                        yield chunk
                    patience.touch()
                exchange.finish()
                return
            except grpc.aio.AioRpcError as error:
                delay_s = exchange.recover(error_of(error, self.server))
            finally:
                call.cancel()


async def _read(call: _Call, patience: Patience) -> sampling_pb2.SampleResponse | None:
    """Read the next message in the time that is left for it; None at the end of the stream."""
    try:
        async with asyncio.timeout(patience.message_timeout_s()):
            response = await call.read()
    except TimeoutError as error:
        raise patience.expired() from error
    except asyncio.CancelledError as error:
        _tell_own_cancelling(error)
        raise Cancelled(f"The server cancelled the call: {await call.details()}") from error
    return None if response is grpc.aio.EOF else cast(sampling_pb2.SampleResponse, response)


def _tell_own_cancelling(error: asyncio.CancelledError) -> None:
    """Raise it again when it is the caller's task that is cancelled, rather than the call."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
