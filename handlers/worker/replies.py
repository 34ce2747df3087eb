"""Write the outcome of each item of a call: finished work and errors enter, messages of fount.worker.v1 leave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.execution.batches import Work
from handlers.execution.errors import ItemError
from handlers.worker.tensors import DTYPES

__all__ = ["add_outcome", "status_of"]

_CODES: Mapping[str, int] = {
    "CALL_TOO_LARGE": code_pb2.RESOURCE_EXHAUSTED,
    "OUT_OF_MEMORY": code_pb2.RESOURCE_EXHAUSTED,
    "DEADLINE_PASSED": code_pb2.DEADLINE_EXCEEDED,
    "MODEL_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "OPERATION_NOT_SUPPORTED": code_pb2.FAILED_PRECONDITION,
    "NUMERICS_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "DIGEST_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "MODEL_FAILED": code_pb2.INTERNAL,
    "WORKER_FAILED": code_pb2.INTERNAL,
    "NOT_FINITE": code_pb2.INTERNAL,
    "OUT_OF_RANGE": code_pb2.INTERNAL,
}  # every other reason means an invalid item


def status_of(error: ItemError) -> status_pb2.Status:
    """Build the status of an item or a row; a gateway decides by its reason and never parses the message."""
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain="fount"))
    code = _CODES.get(error.reason, code_pb2.INVALID_ARGUMENT)
    return status_pb2.Status(code=code, message=str(error), details=[detail])


def add_outcome(reply: worker_pb2.WorkerReply, item: Work | ItemError, request_id: str) -> None:
    """Append an item's outcome to a reply, in place: assigning a message to another would copy the values."""
    message = reply.items.add()
    match item:
        case (ItemError() as error) | Work(failure=ItemError() as error):
            message.status.CopyFrom(status_of(error))
        case Work(values=values):
            tensor = message.value
            if item.next_step is not None:
                message.carry.next_step = item.next_step
                tensor = message.carry.state
            tensor.dtype = model_pb2.DTYPE_UINT8 if values.dtype == np.uint8 else model_pb2.DTYPE_FLOAT32
            tensor.dims.extend(values.shape)
            tensor.data = values.astype(DTYPES[tensor.dtype], copy=False).tobytes()
            for row, fault in sorted(item.failed_rows.items()):
                returned = "NaN or infinite values" if fault == "NOT_FINITE" else "values beyond its range"
                remedy = f"for this row (request {request_id!r}); try another index or label"
                error = ItemError(fault, f"the model returned {returned} {remedy}")
                message.row_errors.add(row=row, status=status_of(error))
