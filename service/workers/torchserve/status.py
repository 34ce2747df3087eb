"""What TorchServe's statuses mean: it says INTERNAL or UNAVAILABLE for almost everything."""

from __future__ import annotations

import grpc

from service.domain import Call
from service.errors import NotReady, TooLate, WorkerFault, WorkerLost

__all__ = ["error_to_domain", "is_no_room", "is_silence"]

_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_NO_ROOM = "has no worker to serve"
_GONE = (_NO_ROOM, "Model not found")


def error_to_domain(error: grpc.aio.AioRpcError, call: Call) -> NotReady | TooLate | WorkerFault:
    """The error of a call that TorchServe did not answer with a prediction."""
    code, details = error.code(), error.details() or ""
    model = f"{call.target.model.name} {call.target.model.version}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate(f"no worker of {model} answered in time")
    if code is grpc.StatusCode.UNAVAILABLE and "Prediction failed" in details:
        return WorkerFault(f"the handler of {model} raised")
    if code in _UNREACHABLE:
        return WorkerLost(f"the TorchServe of {model} went away")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return WorkerLost(f"the TorchServe of {model} wants another token")
    if "Worker died" in details:
        return WorkerLost(f"the worker of {model} died", died=True)
    if any(each in details for each in _GONE):
        return WorkerLost(f"the worker of {model} went away")
    return WorkerFault(f"TorchServe refused a call of {model}: {code.name} {details[:200]}")


def is_no_room(error: grpc.aio.AioRpcError) -> bool:
    """Whether the model's queue is full or its workers are gone: TorchServe has the same words for both."""
    return _NO_ROOM in (error.details() or "")


def is_silence(error: Exception) -> bool:
    """Whether nothing at all was heard."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in (
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    )  # fmt: skip
