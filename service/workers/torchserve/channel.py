"""TorchServe's private gRPC interface: the methods that the pool uses, with their tokens, messages and errors.

Domain values enter and leave: a `Call` becomes a WorkerRequest within a prediction, a WorkerReply a `Reply`, a status
an error of the service.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from numpy.typing import NDArray

from fount.torchserve.v1 import torchserve_pb2
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
from service.errors import NotReady, TooLate, WorkerFault, WorkerLost

__all__ = [
    "Address",
    "TorchServeChannel",
    "call_to_request",
    "error_to_domain",
    "is_unresponsive",
    "read_tokens",
    "reply_to_domain",
    "says_no_worker",
]

_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),  # so that an address that was away for long is found soon
)
_MODELS_A_PAGE = 100
_MANAGEMENT_TIMEOUT_S = 5.0

_NO_WORKER = "has no worker to serve"
_GONE = (_NO_WORKER, "Model not found")
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

_IMAGE_DIMS = 4  # rows, height, width, channels

# Looked up once, because every call needs them.
_OPERATIONS = {each: model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in Operation}
_DTYPES = {each: model_pb2.Dtype.Value(f"DTYPE_{each.name}") for each in Dtype}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a TorchServe listens.

    Attributes:
        inference, management: host:port of its two gRPC services.
        token_file: the `key_file.json` it writes at every start; None when its token authorisation is off.
    """

    inference: str
    management: str
    token_file: Path | None = None


class TorchServeChannel:
    """The connections to one TorchServe."""

    def __init__(self, address: Address) -> None:
        self._inference = grpc.aio.insecure_channel(address.inference, options=_OPTIONS)
        self._management = grpc.aio.insecure_channel(address.management, options=_OPTIONS)
        self._predict = _method(self._inference, _INFERENCE + "Predictions", torchserve_pb2.PredictionResponse)
        self._list = _method(self._management, _MANAGEMENT + "ListModels", torchserve_pb2.ManagementResponse)
        self._describe = _method(self._management, _MANAGEMENT + "DescribeModel", torchserve_pb2.ManagementResponse)
        self._token_file = address.token_file
        self._tokens: dict[str, str] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._inference.close()
        await self._management.close()

    async def predict(self, name: str, version: str, body: bytes, timeout_s: float) -> bytes:
        """Call a model's handler."""
        request = torchserve_pb2.PredictionsRequest(model_name=name, model_version=version, input={"body": body})
        answer: torchserve_pb2.PredictionResponse = await self._predict(
            request, timeout=timeout_s, metadata=self._authorization("inference")
        )
        return answer.prediction

    def forget_tokens(self) -> None:
        """Read the token file again for the next call: TorchServe writes new tokens when it starts."""
        self._tokens = {}

    async def list_models(self) -> list[str]:
        """List the names of the registered models."""
        names: list[str] = []
        page = 0
        while True:
            request = torchserve_pb2.ListModelsRequest(limit=_MODELS_A_PAGE, next_page_token=page)
            answer = json.loads(await self._manage(self._list, request))
            names += [each["modelName"] for each in answer["models"]]
            if not answer.get("nextPageToken"):
                return names
            page = int(answer["nextPageToken"])

    async def ready_pids(self, name: str) -> dict[str, frozenset[int]]:
        """Return the process ids of the workers that are ready, for every version of a model."""
        request = torchserve_pb2.DescribeModelRequest(model_name=name, model_version="all")
        return {
            each["modelVersion"]: frozenset(int(w["pid"]) for w in each["workers"] if w["status"] == "READY")
            for each in json.loads(await self._manage(self._describe, request))
        }

    async def _manage(self, method: Any, request: Message) -> str:
        metadata = self._authorization("management")
        answer: torchserve_pb2.ManagementResponse
        answer = await method(request, timeout=_MANAGEMENT_TIMEOUT_S, metadata=metadata)
        return answer.msg

    def _authorization(self, service: str) -> tuple[tuple[str, str], ...]:
        if self._token_file is not None and not self._tokens:
            self._tokens = read_tokens(self._token_file)
        token = self._tokens.get(service)
        return (("authorization", f"Bearer {token}"),) if token else ()


def read_tokens(file: Path) -> dict[str, str]:
    """Read the tokens of a TorchServe by service; empty while the file is missing or incomplete."""
    try:
        keys = json.loads(file.read_text())
        return {service: str(keys[service]["key"]) for service in ("inference", "management")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def error_to_domain(error: grpc.aio.AioRpcError, call: Call) -> NotReady | TooLate | WorkerFault:
    """Translate the error of a prediction; TorchServe uses INTERNAL or UNAVAILABLE for almost everything."""
    code, details = error.code(), error.details() or ""
    model = f"{call.target.model.name} {call.target.model.version}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate(f"no worker of {model} answered in time")
    if code is grpc.StatusCode.UNAVAILABLE and "Prediction failed" in details:
        return WorkerFault(f"the handler of {model} raised an exception")
    if code in _UNREACHABLE:
        return WorkerLost(f"the TorchServe of {model} went away")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return WorkerLost(f"the TorchServe of {model} requires another token")
    if "Worker died" in details:
        return WorkerLost(f"the worker of {model} died", died=True)
    if any(each in details for each in _GONE):
        return WorkerLost(f"the worker of {model} went away")
    return WorkerFault(f"TorchServe refused a call of {model}: {code.name} {details[:200]}")


def says_no_worker(error: grpc.aio.AioRpcError) -> bool:
    """Whether the model's queue is full or its workers are gone: TorchServe has one message for both."""
    return _NO_WORKER in (error.details() or "")


def is_unresponsive(error: Exception) -> bool:
    """Whether there was no answer at all."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in (
        *_UNREACHABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
    )  # fmt: skip


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
    return worker_pb2.WorkerItem(tensor=_tensor(item.rows), dtype=_DTYPES[Dtype.FLOAT32])


def _tensor(array: NDArray[np.uint8] | NDArray[np.float32]) -> worker_pb2.Tensor:
    dtype = Dtype.UINT8 if array.dtype == np.uint8 else Dtype.FLOAT32
    data = array.astype(dtype.numpy, copy=False).tobytes()
    return worker_pb2.Tensor(dims=array.shape, dtype=_DTYPES[dtype], data=data)


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
    """Check that addresses return images, and a manipulation images of the same shape."""
    wrong = False
    if isinstance(item, RangeItem):
        wrong = (dtype, len(dims)) != (_DTYPES[item.dtype], _IMAGE_DIMS)
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


def _method(channel: grpc.aio.Channel, path: str, answer: type[Message]) -> Any:
    return channel.unary_unary(
        path, request_serializer=lambda request: request.SerializeToString(), response_deserializer=answer.FromString
    )
