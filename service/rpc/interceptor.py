"""The interceptor of every RPC: it sets the caller and request id, counts, limits, and turns errors into statuses."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from service.caller import Caller, CallerPolicy, current_caller, enter_caller
from service.config import GatewayConfig
from service.domain import Priority
from service.errors import FountServiceError, InvalidRequest, JobsUnreachable, Overloaded, TooLate
from service.rpc.parsing import request_parser
from service.rpc.status import error_to_status, unexpected_status
from service.rpc.wire_format import serializer
from service.scheduler.work import RequestContext
from service.telemetry.metrics import Metrics

__all__ = ["CallInterceptor", "request_context"]

_log = logging.getLogger(__name__)
_request_id: ContextVar[str] = ContextVar("fount_request_id", default="")
_MAX_REQUEST_ID = 64
_RETRY_AFTER_S = 1.0  # when too many calls are open
_SAMPLE = ("server_stream", "fount.v1.SamplingService", "Sample")  # the scheduler limits its streams
_UNLIMITED = nullcontext()

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


def request_context(context: Context, priority: Priority = Priority.BULK) -> RequestContext:
    """Return on whose behalf the RPC being handled calls workers; refused at once when the gateway is overloaded."""
    remaining_s = context.time_remaining()
    return RequestContext(
        caller=current_caller(),
        deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
        request_id=_request_id.get(),
        priority=priority,
        retry_overloaded=False,
    )


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler, except those that read a stream and answer once, of which there are none."""

    def __init__(self, policy: CallerPolicy, metrics: Metrics, config: GatewayConfig) -> None:
        self._policy = policy
        self._metrics = metrics
        self._idle_timeout_s = config.idle_timeout_s
        self._open_calls = _OpenCalls(config.max_open_calls, metrics)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of one call."""
        known = self._wrapped.get(handler_call_details.method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or (handler.request_streaming and not handler.response_streaming):
            return handler  # grpc answers unknown methods
        wrapped = self._wrapped[handler_call_details.method] = self._wrap(handler, handler_call_details.method)
        return wrapped

    def _wrap(self, handler: Handler, path: str) -> Handler:
        _, service, method = path.split("/", 2)
        wrap: Callable[[Any, tuple[str, str, str]], Any] = self._wrap_stream
        if handler.request_streaming:
            kind, behave, make = "bidi_stream", handler.stream_stream, grpc.stream_stream_rpc_method_handler
        elif handler.response_streaming:
            kind, behave, make = "server_stream", handler.unary_stream, grpc.unary_stream_rpc_method_handler
            # Health.Watch writes to its context and returns; our own handlers are generators. Both are streams.
            wrap = self._wrap_unary if inspect.iscoroutinefunction(behave) else self._wrap_stream
        else:
            kind, behave, make = "unary", handler.unary_unary, grpc.unary_unary_rpc_method_handler
            wrap = self._wrap_unary
        return make(
            wrap(behave, (kind, service, method)),
            request_deserializer=handler.request_deserializer and request_parser(method, handler.request_deserializer),
            response_serializer=serializer(handler.response_serializer),
        )

    def _wrap_unary(self, behave: Any, rpc: tuple[str, str, str]) -> Any:
        async def unary(request: Any, context: Context) -> Any:
            call = _Call(rpc, context, self._metrics)
            try:
                caller = call.identify(self._policy)
                with self._open_calls.opened(rpc, caller):
                    response = await behave(_parsed(request), context)
            except BaseException as error:
                await call.fail(error)
                raise
            call.end("OK")
            return response

        return unary

    def _wrap_stream(self, behave: Any, rpc: tuple[str, str, str]) -> Any:
        async def stream(request: Any, context: Context) -> AsyncGenerator[Any, None]:
            call = _Call(rpc, context, self._metrics)
            try:
                caller = call.identify(self._policy)
                given = self._received(request) if rpc[0] == "bidi_stream" else _parsed(request)
                with self._open_calls.opened(rpc, caller):
                    async with aclosing(behave(given, context)) as responses:
                        async for response in responses:
                            yield response
            except BaseException as error:
                await call.fail(error)
                raise
            call.end("OK")

        return stream

    async def _received(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Yield the requests of a stream.

        Raises:
            InvalidRequest: one is malformed.
            TooLate: the client sends nothing, and does not end its requests.
        """
        while True:
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    request = await anext(requests)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                waited = f"no request arrived within {self._idle_timeout_s:g} s"
                raise TooLate(f"{waited}; send the next one earlier, or end the requests after the last") from error
            yield _parsed(request)


def _parsed(request: Any) -> Any:
    """Return a message; raise the error that its parser returned instead."""
    if isinstance(request, InvalidRequest):
        raise request
    return request


class _OpenCalls:
    """Limits the open calls of every streaming RPC: all of them, and those of one caller."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most, self._metrics = most, metrics
        self._open: Counter[tuple[str, ...]] = Counter()  # by RPC; by RPC and subject

    def opened(self, rpc: tuple[str, str, str], caller: Caller) -> AbstractContextManager[None]:
        """Count a call of a limited kind as open during the block, which raises Overloaded if too many are."""
        return _UNLIMITED if rpc[0] == "unary" or rpc == _SAMPLE else self._counted(rpc, caller)

    @contextmanager
    def _counted(self, rpc: tuple[str, str, str], caller: Caller) -> Iterator[None]:
        of_caller, method = (*rpc, caller.subject), rpc[2]
        if self._open[of_caller] >= caller.limits.max_open_calls:
            limit = caller.limits.max_open_calls
            self._refuse("caller-calls", f"{caller.subject} has {limit} calls of {method} open, which is its limit")
        if self._open[rpc] >= self._most:
            self._refuse("calls", f"{self._most} calls of {method} are open, which is this gateway's limit")
        self._open.update((rpc, of_caller))
        try:
            yield
        finally:
            self._open.subtract((rpc, of_caller))
            if not self._open[of_caller]:
                del self._open[of_caller]

    def _refuse(self, reason: str, message: str) -> None:
        self._metrics.rejected(reason)
        raise Overloaded(f"{message}; end one, or try again in a moment", retry_after_s=_RETRY_AFTER_S)


class _Call:
    """One call of an RPC, counted from its creation to `end`."""

    def __init__(self, rpc: tuple[str, str, str], context: Context, metrics: Metrics) -> None:
        self._rpc, self._context, self._metrics = rpc, context, metrics
        self._start_s = time.monotonic()
        metrics.rpc_started(rpc)

    def identify(self, policy: CallerPolicy) -> Caller:
        """Set the request id and the caller, and return the caller."""
        metadata = tuple(self._context.invocation_metadata() or ())
        given = dict(metadata).get("x-request-id", "")
        _request_id.set(str(given)[:_MAX_REQUEST_ID] or os.urandom(16).hex())
        caller = policy.identify(self._context.peer(), metadata)
        enter_caller(caller)
        return caller

    async def fail(self, error: BaseException) -> None:
        """Abort the RPC with the status of an error; other than an Exception, it says that the client went away."""
        code = "CANCELLED"
        try:
            if isinstance(error, grpc.aio.AbortError):  # a handler of grpc's own has answered
                code = _code_name(self._context)
            elif isinstance(error, Exception):  # the edge: every error becomes a status here
                status = _log_error(error)
                code = code_pb2.Code.Name(status.code)
                rich = rpc_status.to_status(status)
                await self._context.abort(rich.code, rich.details, rich.trailing_metadata)
        finally:
            self.end(code)

    def end(self, code: str) -> None:
        """Count its end."""
        self._metrics.rpc_handled(self._rpc, code, time.monotonic() - self._start_s)


def _log_error(error: Exception) -> status_pb2.Status:
    """Log an error, and return its status."""
    request_id = _request_id.get()
    if isinstance(error, FountServiceError):
        status = error_to_status(error, request_id)
        level = logging.ERROR if status.code == code_pb2.INTERNAL else logging.INFO
        level = logging.WARNING if isinstance(error, JobsUnreachable) else level
        _log.log(level, "call %s refused: %s", request_id, error, exc_info=error.__cause__)
        return status
    _log.error("call %s failed", request_id, exc_info=error)
    return unexpected_status(request_id)


def _code_name(context: Context) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else code_pb2.Code.Name(int(code))
