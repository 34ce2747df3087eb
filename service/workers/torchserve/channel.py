"""TorchServe's private gRPC interface: the methods that the pool uses, with their tokens and errors.

The bytes of a WorkerRequest and what to manage enter; the bytes of a WorkerReply leave, or a status that becomes an
error of the service.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from fount.client.channel import options_for
from fount.files import open_regular
from fount.torchserve.v1 import torchserve_pb2
from service.calls import Call
from service.errors import NotReady, TooLate, WorkerFault, WorkerLost

__all__ = [
    "RESPONSE_TIMEOUT_S",
    "Address",
    "TorchServeChannel",
    "error_to_domain",
    "is_unresponsive",
    "read_tokens",
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
RESPONSE_TIMEOUT_S = 120
"""After so many seconds without an answer, TorchServe replaces a worker."""

_MODELS_A_PAGE = 100
_MANAGEMENT_TIMEOUT_S, _UNPACK_TIMEOUT_S = 5.0, 120.0

_NO_WORKER = "has no worker to serve"
_GONE = (_NO_WORKER, "Model not found")
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


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
        self._inference = grpc.aio.insecure_channel(address.inference, options=options_for(address.inference, _OPTIONS))
        self._management = grpc.aio.insecure_channel(
            address.management, options=options_for(address.management, _OPTIONS)
        )
        self._predict = _method(self._inference, _INFERENCE + "Predictions", torchserve_pb2.PredictionResponse)
        self._list = _method(self._management, _MANAGEMENT + "ListModels", torchserve_pb2.ManagementResponse)
        self._describe = _method(self._management, _MANAGEMENT + "DescribeModel", torchserve_pb2.ManagementResponse)
        self._register = _method(self._management, _MANAGEMENT + "RegisterModel", torchserve_pb2.ManagementResponse)
        self._unregister = _method(self._management, _MANAGEMENT + "UnregisterModel", torchserve_pb2.ManagementResponse)
        self._set_default = _method(self._management, _MANAGEMENT + "SetDefault", torchserve_pb2.ManagementResponse)
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
            request, timeout=timeout_s, metadata=self.authorization("inference")
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
        """Return the process ids of the workers that are ready, for every registered version of a model."""
        request = torchserve_pb2.DescribeModelRequest(model_name=name, model_version="all")
        try:
            answer = await self._manage(self._describe, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # unregistered a moment ago
                return {}
            raise
        return {
            each["modelVersion"]: frozenset(int(w["pid"]) for w in each["workers"] if w["status"] == "READY")
            for each in json.loads(answer)
        }

    async def register(self, archive: str, workers: int) -> None:
        """Unpack an archive of the model store, and begin to start so many workers of it."""
        request = torchserve_pb2.RegisterModelRequest(
            url=archive,
            initial_workers=workers,
            batch_size=1,
            max_batch_delay=1,
            response_timeout=RESPONSE_TIMEOUT_S,
        )
        await self._manage(self._register, request, _UNPACK_TIMEOUT_S)

    async def unregister(self, name: str, version: str) -> None:
        """End a version's workers at once, and forget it; one that is not registered is no error."""
        versions = await self.ready_pids(name)
        if version not in versions:
            return
        if others := versions.keys() - {version}:  # the default version cannot be unregistered before others
            default = torchserve_pb2.SetDefaultRequest(model_name=name, model_version=min(others))
            await self._manage(self._set_default, default)
        request = torchserve_pb2.UnregisterModelRequest(model_name=name, model_version=version)
        await self._manage(self._unregister, request)

    async def _manage(self, method: Any, request: Message, timeout_s: float | None = None) -> str:
        timeout_s, metadata = timeout_s or _MANAGEMENT_TIMEOUT_S, self.authorization("management")
        answer: torchserve_pb2.ManagementResponse = await method(request, timeout=timeout_s, metadata=metadata)
        return answer.msg

    def authorization(self, service: str) -> tuple[tuple[str, str], ...]:
        """Return the metadata with the token of a service; empty when token authorisation is off."""
        if self._token_file is not None and not self._tokens:
            self._tokens = read_tokens(self._token_file)
        token = self._tokens.get(service)
        return (("authorization", f"Bearer {token}"),) if token else ()


def read_tokens(file: Path) -> dict[str, str]:
    """Read the tokens of a TorchServe by service; empty while the file is missing or incomplete."""
    try:
        with open_regular(file) as stream:
            keys = json.load(stream)
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


def _method(channel: grpc.aio.Channel, path: str, answer: type[Message]) -> Any:
    return channel.unary_unary(
        path, request_serializer=lambda request: request.SerializeToString(), response_deserializer=answer.FromString
    )
