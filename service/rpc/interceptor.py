"""The interceptor of every RPC: it sets the caller and request id, counts, and turns errors into statuses."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.rpc import code_pb2
from grpc_status import rpc_status

from service.caller import CallerPolicy, current_caller, enter_caller
from service.errors import FountServiceError
from service.rpc.status import error_to_status, unexpected_status
from service.rpc.wire_format import serializer
from service.scheduler.inference import RequestContext
from service.telemetry.metrics import Metrics

__all__ = ["CallInterceptor", "current_request_id", "request_context"]

_log = logging.getLogger(__name__)
_request_id: ContextVar[str] = ContextVar("fount_request_id", default="")
_MAX_REQUEST_ID = 64

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


def current_request_id() -> str:
    """Return the id of the RPC being handled: its `x-request-id`, or one drawn here."""
    return _request_id.get()


def request_context(context: Context) -> RequestContext:
    """Return on whose behalf the RPC being handled calls workers; refused at once when the gateway is overloaded."""
    remaining_s = context.time_remaining()
    return RequestContext(
        caller=current_caller(),
        deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
        request_id=current_request_id(),
        retry_overloaded=False,
    )


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler, except those that read a stream and answer once, of which there are none.

    Args:
        policy: identifies the caller.
        metrics: counts RPCs.
    """

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
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._wrap_stream(handler.stream_stream, ("bidi_stream", service, method)),
                request_deserializer=handler.request_deserializer,
                response_serializer=serializer(handler.response_serializer),
            )
        if handler.response_streaming:
            # Health.Watch writes to its context and returns; our own handlers are generators. Both are streams.
            writes = inspect.iscoroutinefunction(handler.unary_stream)
            wrap = self._wrap_unary if writes else self._wrap_stream
            return grpc.unary_stream_rpc_method_handler(
                wrap(handler.unary_stream, ("server_stream", service, method)),
                request_deserializer=handler.request_deserializer,
                response_serializer=serializer(handler.response_serializer),
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap_unary(handler.unary_unary, ("unary", service, method)),
            request_deserializer=handler.request_deserializer,
            response_serializer=serializer(handler.response_serializer),
        )

    def _wrap_unary(self, behave: Any, rpc: tuple[str, str, str]) -> Any:
        async def unary(request: Any, context: Context) -> Any:
            with self._measured(rpc) as report_code:
                try:
                    self._enter(context)
                    response = await behave(request, context)
                    report_code("OK")
                except Exception as error:  # noqa: BLE001  # the edge: every error becomes a status here
                    await _abort(context, error, report_code)
                return response

        return unary

    def _wrap_stream(self, behave: Any, rpc: tuple[str, str, str]) -> Any:
        async def stream(request: Any, context: Context) -> AsyncGenerator[Any, None]:
            with self._measured(rpc) as report_code:
                try:
                    self._enter(context)
                    responses: AsyncIterator[Any] = behave(request, context)
                    async with aclosing(responses):  # type: ignore[type-var]  # handlers are generators
                        async for response in responses:
                            yield response
                    report_code("OK")
                except Exception as error:  # noqa: BLE001  # the edge, as above
                    await _abort(context, error, report_code)

        return stream

    def _enter(self, context: Context) -> None:
        metadata = tuple(context.invocation_metadata() or ())
        given = dict(metadata).get("x-request-id", "")
        _request_id.set(str(given)[:_MAX_REQUEST_ID] or os.urandom(16).hex())
        enter_caller(self._policy.identify(context.peer(), metadata))

    @contextmanager
    def _measured(self, rpc: tuple[str, str, str]) -> Iterator[Callable[[str], None]]:
        code = "CANCELLED"  # unless a handler ends: then the client went away
        start_s = time.monotonic()
        self._metrics.rpc_started(rpc)

        def report_code(with_code: str) -> None:
            nonlocal code
            code = with_code

        try:
            yield report_code
        finally:
            self._metrics.rpc_handled(rpc, code, time.monotonic() - start_s)


async def _abort(context: Context, error: Exception, report_code: Callable[[str], None]) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):  # a handler of grpc's own has answered
        report_code(_code_name(context))
        raise error
    request_id = current_request_id()
    if isinstance(error, FountServiceError):
        status = error_to_status(error, request_id)
        level = logging.ERROR if status.code == code_pb2.INTERNAL else logging.INFO
        _log.log(level, "call %s refused: %s", request_id, error, exc_info=error.__cause__)
    else:
        status = unexpected_status(request_id)
        _log.error("call %s failed", request_id, exc_info=error)
    report_code(code_pb2.Code.Name(status.code))
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, rich.trailing_metadata)
    raise asyncio.CancelledError  # not reached: abort raises


def _code_name(context: Context) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else code_pb2.Code.Name(int(code))
