"""The interceptor of every RPC: it sets the caller and request id, counts, and turns errors into statuses."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from service.caller import CallerPolicy, current_caller, enter_caller
from service.domain import Priority
from service.errors import FountServiceError
from service.rpc.status import error_to_status, unexpected_status
from service.rpc.wire_format import serializer
from service.scheduler.work import RequestContext
from service.telemetry.metrics import Metrics

__all__ = ["CallInterceptor", "request_context"]

_log = logging.getLogger(__name__)
_request_id: ContextVar[str] = ContextVar("fount_request_id", default="")
_MAX_REQUEST_ID = 64

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

    def __init__(self, policy: CallerPolicy, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics
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
            request_deserializer=handler.request_deserializer,
            response_serializer=serializer(handler.response_serializer),
        )

    def _wrap_unary(self, behave: Any, rpc: tuple[str, str, str]) -> Any:
        async def unary(request: Any, context: Context) -> Any:
            call = _Call(rpc, context, self._metrics)
            try:
                call.identify(self._policy)
                response = await behave(request, context)
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
                call.identify(self._policy)
                async with aclosing(behave(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                await call.fail(error)
                raise
            call.end("OK")

        return stream


class _Call:
    """One call of an RPC, counted from its creation to `end`."""

    def __init__(self, rpc: tuple[str, str, str], context: Context, metrics: Metrics) -> None:
        self._rpc, self._context, self._metrics = rpc, context, metrics
        self._start_s = time.monotonic()
        metrics.rpc_started(rpc)

    def identify(self, policy: CallerPolicy) -> None:
        """Set the caller and the request id."""
        metadata = tuple(self._context.invocation_metadata() or ())
        given = dict(metadata).get("x-request-id", "")
        _request_id.set(str(given)[:_MAX_REQUEST_ID] or os.urandom(16).hex())
        enter_caller(policy.identify(self._context.peer(), metadata))

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
        _log.log(level, "call %s refused: %s", request_id, error, exc_info=error.__cause__)
        return status
    _log.error("call %s failed", request_id, exc_info=error)
    return unexpected_status(request_id)


def _code_name(context: Context) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else code_pb2.Code.Name(int(code))
