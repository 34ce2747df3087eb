"""Statuses: why an item or a row has no value, as google.rpc.Status with ErrorInfo.

Every status of a worker is built here, so that a gateway can decide by `reason` and never has to parse the message.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2

__all__ = ["ItemError", "status_of"]

_ERROR_DOMAIN = "fount"


class ItemError(Exception):
    """An item of a call is invalid. The message says what to change.

    Attributes:
        status: the outcome of the item.
    """

    def __init__(self, reason: str, message: str, code: int = code_pb2.INVALID_ARGUMENT) -> None:
        self.status = status_of(code, reason, message)
        super().__init__(message)


def status_of(code: int, reason: str, message: str) -> status_pb2.Status:
    """Build a status.

    Args:
        code: a google.rpc.Code.
        reason: UPPER_SNAKE_CASE, for programs.
        message: one sentence with its remedy, for users.
    """
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=_ERROR_DOMAIN))
    return status_pb2.Status(code=code, message=message, details=[detail])
