"""Convert between the values of the service and the messages of worker.v1.

A `Call` becomes a WorkerRequest and a WorkerReply a `Reply`; the same messages travel to a worker directly and within
TorchServe's predictions.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from google.rpc import error_details_pb2
from numpy.typing import NDArray

from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.calls import (
    Call,
    Failure,
    GivenItem,
    Item,
    Labels,
    ManipulationItem,
    Outcome,
    RangeItem,
    Reply,
    Rows,
    SamplerState,
)
from service.domain import Dtype, Operation, Parameters
from service.errors import WorkerFault

__all__ = ["call_to_request", "reply_to_domain"]

# Looked up once, because every call needs them.
_OPERATIONS = {each: model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in Operation}
_DTYPES = {each: model_pb2.Dtype.Value(f"DTYPE_{each.name}") for each in Dtype}


def call_to_request(call: Call) -> worker_pb2.WorkerRequest:
    """Convert a call."""
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
    """Convert a worker's reply.

    Raises:
        WorkerFault: it does not fit the call.
    """
    if len(reply.items) != len(call.items):
        raise WorkerFault(f"the worker returned {len(reply.items)} outcomes for {len(call.items)} items")
    return Reply(
        outcomes=tuple(_outcome(item, outcome) for item, outcome in zip(call.items, reply.items, strict=True)),
        compute_s=reply.timings.compute_s,
    )


@lru_cache(maxsize=256)
def _parameters(parameters: Parameters) -> sampling_pb2.Parameters:
    """Convert the parameters of a lane; calls copy the message."""
    given = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    return sampling_pb2.Parameters(**{name: value for name, value in given.items() if value is not None})


def _item(item: Item) -> worker_pb2.WorkerItem:
    if isinstance(item, RangeItem):
        addresses = worker_pb2.Range(
            seed=item.seed,
            start_index=item.start_index,
            count=item.count,
            labels=[] if item.labels is None else _shortest(item.labels),
            indices=[] if item.indices is None else item.indices.tolist(),
        )
        state = item.resume_from
        carry = None if state is None else worker_pb2.Carry(next_step=state.next_step, state=_tensor(state.state))
        return worker_pb2.WorkerItem(range=addresses, dtype=_DTYPES[item.dtype], carry=carry)
    if isinstance(item, ManipulationItem):
        addresses = worker_pb2.Range(seed=item.seed, count=item.count, indices=item.indices.tolist())
        manipulation = worker_pb2.Manipulation(
            images=_tensor(item.rows), parameters=_tensor(item.table), addresses=addresses
        )
        return worker_pb2.WorkerItem(manipulation=manipulation, dtype=_DTYPES[Dtype.UINT8])
    if isinstance(item, GivenItem):
        given = worker_pb2.Given(
            values=_tensor(_first_of_equal(item.rows)),
            labels=[] if item.labels is None else _shortest(item.labels),
            addresses=worker_pb2.Range(seed=item.seed, count=item.count, indices=item.indices.tolist()),
            mask=None if item.mask is None else _tensor(_first_of_equal(item.mask)),
        )
        return worker_pb2.WorkerItem(given=given, dtype=_DTYPES[item.dtype])
    return worker_pb2.WorkerItem(tensor=_tensor(item.rows), dtype=_DTYPES[Dtype.FLOAT32])


def _tensor(array: NDArray[np.uint8] | NDArray[np.float32]) -> worker_pb2.Tensor:
    dtype = Dtype.UINT8 if array.dtype == np.uint8 else Dtype.FLOAT32
    data = array.astype(dtype.numpy, copy=False).tobytes()
    return worker_pb2.Tensor(dims=array.shape, dtype=_DTYPES[dtype], data=data)


def _first_of_equal(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the first of rows that are one row, repeated without copies; else all."""
    return rows[:1] if rows.strides[0] == 0 else rows


def _shortest(labels: Labels) -> list[int]:
    """List labels; a single one when all are equal, as in a request for one class."""
    all_equal = len(labels) > 1 and bool((labels == labels[0]).all())
    return labels[:1].tolist() if all_equal else labels.tolist()  # type: ignore[no-any-return]


def _outcome(item: Item, outcome: worker_pb2.WorkerOutcome) -> Outcome:
    if outcome.HasField("status"):
        return _failure(outcome.status)
    if outcome.HasField("carry"):
        return _sampler_state(item.count, outcome.carry)
    _check_kind(item, outcome.value.dtype, tuple(outcome.value.dims))
    array = _array(outcome.value)
    if array.shape[:1] != (item.count,):
        raise WorkerFault(f"the worker returned rows {array.shape[:1]} of {item.count}")
    return Rows(array=array, failures={each.row: _failure(each.status) for each in outcome.row_errors})


def _sampler_state(rows: int, carry: worker_pb2.Carry) -> SamplerState:
    if carry.state.dtype != _DTYPES[Dtype.FLOAT32] or tuple(carry.state.dims)[:1] != (rows,):
        raise WorkerFault(f"the worker preempted a draw of {rows} rows with a state of {list(carry.state.dims)}")
    return SamplerState(next_step=carry.next_step, state=_array(carry.state))


def _array(tensor: worker_pb2.Tensor) -> NDArray[Any]:
    try:
        return np.frombuffer(tensor.data, Dtype(tensor.dtype).numpy).reshape(tuple(tensor.dims))
    except ValueError as error:
        raise WorkerFault(f"the data of the worker's tensor do not fit its dtype and dims: {error}") from error


def _check_kind(item: Item, dtype: int, dims: tuple[int, ...]) -> None:
    """Check that addresses and given rows return their element type, and a manipulation images of the same shape."""
    wrong = False
    if isinstance(item, RangeItem | GivenItem):
        wrong = dtype != _DTYPES[item.dtype] or len(dims) < 2
    elif isinstance(item, ManipulationItem):
        wrong = (dtype, dims) != (_DTYPES[Dtype.UINT8], item.rows.shape)
    if wrong:
        raise WorkerFault(f"the worker returned dtype {dtype} of dims {list(dims)}")


def _failure(status: Any) -> Failure:
    reason = "WORKER"
    for detail in status.details:
        if detail.TypeName() == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
    return Failure(code=status.code, reason=reason, message=status.message)
