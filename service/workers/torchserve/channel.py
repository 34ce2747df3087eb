"""TorchServe's private gRPC: the calls the pool makes, with their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from fount.torchserve.v1 import torchserve_pb2

__all__ = ["Address", "TorchServeChannel", "WorkerState", "read_tokens"]

_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),  # one that was away for long is found soon after it is back
)
_MODELS_A_PAGE = 100
_PROBE_S = 5.0

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
        predicted, managed = torchserve_pb2.PredictionResponse, torchserve_pb2.ManagementResponse
        self._predict = _method(self._inference, _INFERENCE + "Predictions", predicted.FromString)
        self._manage_by = {
            name: _method(self._management, _MANAGEMENT + name, managed.FromString)
            for name in ("ListModels", "DescribeModel")
        }
        self._token_file = address.token_file
        self._tokens: dict[str, str] = {}

    async def close(self) -> None:
        """Let go of the connections."""
        await self._inference.close()
        await self._management.close()

    async def predict(self, name: str, version: str, body: bytes, timeout_s: float) -> bytes:
        """One prediction."""
        request = torchserve_pb2.PredictionsRequest(model_name=name, model_version=version, input={"body": body})
        answer: torchserve_pb2.PredictionResponse = await self._predict(
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
        answer: torchserve_pb2.ManagementResponse = await self._manage_by[method](
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


def _method(channel: grpc.aio.Channel, path: str, parse: Callable[[bytes], Answer]) -> Any:
    return channel.unary_unary(path, request_serializer=_serialize, response_deserializer=parse)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
