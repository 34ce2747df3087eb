"""TorchServe's private gRPC: the four calls the pool makes, and domain values on this side of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.domain import Call, Dtype, Failure, Outcome, RangeItem, Reply, Rows, TensorItem
from service.errors import WorkerFault

__all__ = ["Address", "TorchServeChannel", "WorkerState", "call_to_request", "read_tokens", "reply_to_domain"]

_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_MODELS_A_PAGE = 100
_PROBE_S = 5.0
_IMAGE_DIMS = 4  # rows, height, width, channels

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a TorchServe is.

    Attributes:
        inference, management: host:port of its two gRPC services.
        token_file: the `key_file.json` it writes at every start; None when its token authorisation is off.
    """

    inference: str
    management: str
    token_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """What TorchServe tells of one model version: process ids of the workers that are ready."""

    ready_pids: frozenset[int]


class TorchServeChannel:
    """The channels to one TorchServe."""

    def __init__(self, address: Address) -> None:
        self._inference = grpc.aio.insecure_channel(address.inference, options=_OPTIONS)
        self._management = grpc.aio.insecure_channel(address.management, options=_OPTIONS)
        self._token_file = address.token_file
        self._tokens: dict[str, str] = {}

    async def close(self) -> None:
        """Let go of the connections."""
        await self._inference.close()
        await self._management.close()

    async def predict(self, name: str, version: str, body: bytes, timeout_s: float) -> bytes:
        """One prediction."""
        request = torchserve_pb2.PredictionsRequest(model_name=name, model_version=version, input={"body": body})
        method = _method(self._inference, _INFERENCE + "Predictions", torchserve_pb2.PredictionResponse.FromString)
        answer: torchserve_pb2.PredictionResponse = await method(
            request, timeout=timeout_s, metadata=self._bearer("inference")
        )
        return answer.prediction

    def forget_tokens(self) -> None:
        """Read the token file again with the next call: TorchServe draws new tokens when it starts."""
        self._tokens = {}

    async def list_models(self) -> list[str]:
        """The names registered."""
        names: list[str] = []
        page = 0
        while True:
            request = torchserve_pb2.ListModelsRequest(limit=_MODELS_A_PAGE, next_page_token=page)
            told = json.loads(await self._manage("ListModels", request))
            names += [each["modelName"] for each in told["models"]]
            if not told.get("nextPageToken"):
                return names
            page = int(told["nextPageToken"])

    async def describe(self, name: str) -> dict[str, WorkerState]:
        """The state of every version of a model."""
        request = torchserve_pb2.DescribeModelRequest(model_name=name, model_version="all")
        return {
            each["modelVersion"]: WorkerState(
                ready_pids=frozenset(int(w["pid"]) for w in each["workers"] if w["status"] == "READY")
            )
            for each in json.loads(await self._manage("DescribeModel", request))
        }

    async def _manage(self, method: str, request: Message) -> str:
        call = _method(self._management, _MANAGEMENT + method, torchserve_pb2.ManagementResponse.FromString)
        answer: torchserve_pb2.ManagementResponse = await call(
            request, timeout=_PROBE_S, metadata=self._bearer("management")
        )
        return answer.msg

    def _bearer(self, service: str) -> tuple[tuple[str, str], ...]:
        if self._token_file is not None and not self._tokens:
            self._tokens = read_tokens(self._token_file)
        token = self._tokens.get(service)
        return (("authorization", f"Bearer {token}"),) if token else ()


def read_tokens(file: Path) -> dict[str, str]:
    """The tokens of a TorchServe by service; none while the file is not there or not whole."""
    try:
        keys = json.loads(file.read_text())
        return {service: str(keys[service]["key"]) for service in ("inference", "management")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def call_to_request(call: Call) -> worker_pb2.WorkerRequest:
    """The worker.v1 request of a call."""
    parameters = {key: value for key, value in asdict(call.parameters).items() if value is not None}
    return worker_pb2.WorkerRequest(
        operation=model_pb2.Operation.Value(f"OPERATION_{call.operation.name}"),
        request_id=call.request_id,
        deadline_unix_ms=0 if call.deadline_unix_s is None else max(1, int(call.deadline_unix_s * 1000)),
        parameters=sampling_pb2.Parameters(**parameters),
        items=[_item(each) for each in call.items],
        numerics=call.target.numerics,
        model_digest=call.target.model.digest,
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


def _method(channel: grpc.aio.Channel, path: str, parse: Callable[[bytes], Answer]) -> Any:
    return channel.unary_unary(path, request_serializer=_serialize, response_deserializer=parse)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _dtype(dtype: Dtype) -> model_pb2.Dtype.ValueType:
    return model_pb2.Dtype.Value(f"DTYPE_{dtype.name}")


def _item(item: RangeItem | TensorItem) -> worker_pb2.WorkerItem:
    if isinstance(item, RangeItem):
        labels = [] if item.labels is None else item.labels.tolist()
        addresses = worker_pb2.Range(seed=item.seed, start_index=item.start_index, count=item.count, labels=labels)
        return worker_pb2.WorkerItem(range=addresses, dtype=_dtype(item.dtype))
    dtype = Dtype.UINT8 if item.rows.dtype == np.uint8 else Dtype.FLOAT32
    tensor = worker_pb2.Tensor(dims=item.rows.shape, dtype=_dtype(dtype), data=item.rows.tobytes())
    return worker_pb2.WorkerItem(tensor=tensor, dtype=_dtype(Dtype.FLOAT32))


def _outcome(item: RangeItem | TensorItem, outcome: worker_pb2.WorkerOutcome) -> Outcome:
    if outcome.WhichOneof("outcome") == "status":
        return _failure(outcome.status)
    rows = item.count if isinstance(item, RangeItem) else len(item.rows)
    told = (int(outcome.value.dtype), len(outcome.value.dims))
    if isinstance(item, RangeItem) and told != (int(item.dtype), _IMAGE_DIMS):
        raise WorkerFault(f"the worker answered dtype {outcome.value.dtype} of dims {list(outcome.value.dims)}")
    try:
        is_float = Dtype(outcome.value.dtype) is Dtype.FLOAT32
        flat = np.frombuffer(outcome.value.data, "<f4") if is_float else np.frombuffer(outcome.value.data, np.uint8)
        array = flat.reshape(tuple(outcome.value.dims))
    except ValueError as error:
        raise WorkerFault(f"the worker's tensor does not hold what it says: {error}") from error
    if array.shape[:1] != (rows,):
        raise WorkerFault(f"the worker answered rows {array.shape[:1]} of {rows}")
    return Rows(array=array, failures={each.row: _failure(each.status) for each in outcome.row_errors})


def _failure(status: Any) -> Failure:
    reason = "WORKER"
    for detail in status.details:
        if detail.TypeName() == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
    return Failure(code=status.code, reason=reason, message=status.message)
