"""Statuses: why an item or a row has no value, as google.rpc.Status with ErrorInfo.

Every status of a worker is built here, so that a gateway can go by `reason` and never has to read the sentence.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

__all__ = ["ERROR_DOMAIN", "status_of"]

ERROR_DOMAIN = "fount"


def status_of(code: int, reason: str, message: str) -> status_pb2.Status:
    """Build a status.

    Args:
        code: a google.rpc.Code.
        reason: UPPER_SNAKE_CASE, for programs.
        message: one sentence with its remedy, for people.
    """
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    return status_pb2.Status(code=code, message=message, details=[detail])
