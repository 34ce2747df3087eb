"""Between domain values and what crosses to a worker: a `Call` becomes a WorkerRequest, a WorkerReply a `Reply`."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from google.rpc import error_details_pb2
from numpy.typing import NDArray

from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.domain import (
    Call,
    Dtype,
    Failure,
    Item,
    Labels,
    ManipulationItem,
    Operation,
    Outcome,
    Parameters,
    RangeItem,
    Reply,
    Rows,
    SamplerState,
)
from service.errors import WorkerFault

__all__ = ["call_to_request", "reply_to_domain"]

_IMAGE_DIMS = 4  # rows, height, width, channels

# Looked up once: every call needs them.
_OPERATIONS = {each: model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in Operation}
_DTYPES = {each: model_pb2.Dtype.Value(f"DTYPE_{each.name}") for each in Dtype}


def call_to_request(call: Call) -> worker_pb2.WorkerRequest:
    """The worker.v1 request of a call."""
    return worker_pb2.WorkerRequest(
        operation=_OPERATIONS[call.operation],
        request_id=call.request_id,
        deadline_unix_ms=0 if call.deadline_unix_s is None else max(1, int(call.deadline_unix_s * 1000)),
        parameters=_parameters(call.parameters),
        items=[_item(each) for each in call.items],
        numerics=call.target.numerics,
        model_digest=call.target.model.digest,
        step_limit=call.step_limit or 0,
    )


def reply_to_domain(call: Call, reply: worker_pb2.WorkerReply) -> Reply:
    """The domain value of a worker's reply.

    Raises:
        WorkerFault: it does not fit the call.
    """
    if len(reply.items) != len(call.items):
        raise WorkerFault(f"the worker answered {len(reply.items)} items of {len(call.items)}")
    return Reply(
        outcomes=tuple(_outcome(item, outcome) for item, outcome in zip(call.items, reply.items, strict=True)),
        queue_s=reply.timings.queue_s,
        compute_s=reply.timings.compute_s,
        batch_sizes=tuple(reply.timings.batch_sizes),
    )


@lru_cache(maxsize=256)
def _parameters(parameters: Parameters) -> sampling_pb2.Parameters:
    """The message of a lane's parameters; calls copy it."""
    given = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    return sampling_pb2.Parameters(**{name: value for name, value in given.items() if value is not None})


def _item(item: Item) -> worker_pb2.WorkerItem:
    if isinstance(item, RangeItem):
        labels = [] if item.labels is None else _told_labels(item.labels)
        addresses = worker_pb2.Range(
            seed=item.seed, start_index=item.start_index, count=item.count, labels=labels, indices=_told(item.indices)
        )
        return worker_pb2.WorkerItem(range=addresses, dtype=_DTYPES[item.dtype], carry=_told_carry(item.resume_from))
    if isinstance(item, ManipulationItem):
        addresses = worker_pb2.Range(seed=item.seed, count=item.count, indices=_told(item.indices))
        manipulation = worker_pb2.Manipulation(
            images=_tensor(item.rows), parameters=_tensor(item.table), addresses=addresses
        )
        return worker_pb2.WorkerItem(manipulation=manipulation, dtype=_DTYPES[Dtype.UINT8])
    return worker_pb2.WorkerItem(tensor=_tensor(item.rows), dtype=_DTYPES[Dtype.FLOAT32])


def _tensor(array: NDArray[np.uint8] | NDArray[np.float32]) -> worker_pb2.Tensor:
    dtype = Dtype.UINT8 if array.dtype == np.uint8 else Dtype.FLOAT32
    data = array.astype(dtype.numpy, copy=False).tobytes()
    return worker_pb2.Tensor(dims=array.shape, dtype=_DTYPES[dtype], data=data)


def _told(indices: NDArray[np.uint64] | None) -> list[int]:
    return [] if indices is None else indices.tolist()


def _told_labels(labels: Labels) -> list[int]:
    """A single one when all are the same, as when one class is asked for."""
    is_one = len(labels) > 1 and bool((labels == labels[0]).all())
    return labels[:1].tolist() if is_one else labels.tolist()  # type: ignore[no-any-return]


def _told_carry(carry: SamplerState | None) -> worker_pb2.Carry | None:
    if carry is None:
        return None
    return worker_pb2.Carry(next_step=carry.next_step, state=_tensor(carry.state))


def _carry(rows: int, told: worker_pb2.Carry) -> SamplerState:
    if told.state.dtype != _DTYPES[Dtype.FLOAT32] or tuple(told.state.dims)[:1] != (rows,):
        raise WorkerFault(f"the worker cut a draw of {rows} rows to a state of {list(told.state.dims)}")
    try:
        state = np.frombuffer(told.state.data, "<f4").reshape(tuple(told.state.dims))
    except ValueError as error:
        raise WorkerFault(f"the worker's state does not hold what it says: {error}") from error
    return SamplerState(next_step=told.next_step, state=state)


def _outcome(item: Item, outcome: worker_pb2.WorkerOutcome) -> Outcome:
    if outcome.HasField("status"):
        return _failure(outcome.status)
    if outcome.HasField("carry"):
        return _carry(item.count, outcome.carry)
    value = outcome.value
    dims = tuple(value.dims)
    _check_kind(item, value.dtype, dims)
    try:
        is_float = Dtype(value.dtype) is Dtype.FLOAT32
        flat = np.frombuffer(value.data, "<f4") if is_float else np.frombuffer(value.data, np.uint8)
        array = flat.reshape(dims)
    except ValueError as error:
        raise WorkerFault(f"the worker's tensor does not hold what it says: {error}") from error
    if array.shape[:1] != (item.count,):
        raise WorkerFault(f"the worker answered rows {array.shape[:1]} of {item.count}")
    return Rows(array=array, failures={each.row: _failure(each.status) for each in outcome.row_errors})


def _check_kind(item: Item, dtype: int, dims: tuple[int, ...]) -> None:
    """Refuse an answer that is not of the kind asked for: images for addresses, the same shape for a manipulation."""
    wrong = False
    if isinstance(item, RangeItem):
        wrong = (dtype, len(dims)) != (_DTYPES[item.dtype], _IMAGE_DIMS)
    elif isinstance(item, ManipulationItem):
        wrong = (dtype, dims) != (_DTYPES[Dtype.UINT8], item.rows.shape)
    if wrong:
        raise WorkerFault(f"the worker answered dtype {dtype} of dims {list(dims)}")


def _failure(status: Any) -> Failure:
    reason = "WORKER"
    for detail in status.details:
        if detail.TypeName() == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
    return Failure(code=status.code, reason=reason, message=status.message)
