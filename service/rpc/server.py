"""The gRPC server of a gateway: its services, health and reflection, on one port."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fount.runner.v1 import runner_pb2_grpc
from fount.v1 import (
    augmentation_pb2,
    augmentation_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    evaluation_pb2,
    evaluation_pb2_grpc,
    latent_pb2,
    latent_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    sampling_pb2,
    sampling_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    translation_pb2,
    translation_pb2_grpc,
)
from service.errors import SetupError
from service.rpc.augmentation import AugmentationServicer
from service.rpc.datasets import DatasetServicer
from service.rpc.evaluation import EvaluationServicer
from service.rpc.given import GivenStreams, LatentServicer, ScoringServicer, TranslationServicer
from service.rpc.interceptor import CallInterceptor
from service.rpc.models import ModelServicer
from service.rpc.reading import ReadingServicer
from service.rpc.sampling import SamplingServicer

__all__ = ["RpcServer"]

_SERVICES = (
    augmentation_pb2.DESCRIPTOR.services_by_name["AugmentationService"].full_name,
    dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
    evaluation_pb2.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
    latent_pb2.DESCRIPTOR.services_by_name["LatentService"].full_name,
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name,
    scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name,
    translation_pb2.DESCRIPTOR.services_by_name["TranslationService"].full_name,
)
_MAX_PENDING_CALLS = 1 << 16
_HANDSHAKE_MS = 10_000  # until a connection has said that it speaks HTTP/2
_IDLE_MS = 600_000  # without a call; clients connect again by themselves
_PING_MS, _PING_TIMEOUT_MS = 60_000, 20_000  # so that calls of clients that are gone end
_MAX_RESPONSE_BYTES = 64 << 20  # features of 4 MiB of images; chunks and pages are far smaller


class _HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # without types
    """Answers Check and Watch, as the package does, and List, which it leaves out."""

    async def List(self, request: health_pb2.HealthListRequest, context: object) -> health_pb2.HealthListResponse:  # noqa: N802  # gRPC's name
        """Return the status of the server, under an empty name, and of each service."""
        statuses = {
            service: health_pb2.HealthCheckResponse(status=status) for service, status in self._server_status.items()
        }
        return health_pb2.HealthListResponse(statuses=statuses)


class RpcServer:
    """A gRPC server with Fount's services. Create it within the running event loop.

    Args:
        interceptor: wraps every RPC.
        max_request_bytes: largest request message.
        max_connections: open connections of clients; more are closed at once.
        models, datasets, sampling, given, augmentation, evaluation, reading: answer the services' methods.
    """

    def __init__(
        self,
        *,
        interceptor: CallInterceptor,
        max_request_bytes: int,
        max_connections: int,
        models: ModelServicer,
        datasets: DatasetServicer,
        sampling: SamplingServicer,
        given: GivenStreams,
        augmentation: AugmentationServicer,
        evaluation: EvaluationServicer,
        reading: ReadingServicer,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", _MAX_RESPONSE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
            # Beyond these, grpc drops calls at random as CANCELLED; the scheduler refuses with a reason.
            ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
        ]
        self._server = grpc.aio.server(interceptors=[interceptor], options=options)
        self._health = _HealthServicer()
        self._evaluation = evaluation
        model_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, self._server)
        sampling_pb2_grpc.add_SamplingServiceServicer_to_server(sampling, self._server)
        latent_pb2_grpc.add_LatentServiceServicer_to_server(LatentServicer(given), self._server)
        scoring_pb2_grpc.add_ScoringServiceServicer_to_server(ScoringServicer(given), self._server)
        translation_pb2_grpc.add_TranslationServiceServicer_to_server(TranslationServicer(given), self._server)
        augmentation_pb2_grpc.add_AugmentationServiceServicer_to_server(augmentation, self._server)
        evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluation, self._server)
        runner_pb2_grpc.add_ReadingServiceServicer_to_server(reading, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    def bind(self, host: str, port: int) -> int:
        """Bind a port, 0 for any free one, and return it.

        Raises:
            SetupError: the port is taken or may not be used.
        """
        try:
            return self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise SetupError(f"cannot listen on {host}:{port} for gRPC; it is taken or may not be used; "
                             "choose another with --port") from error  # fmt: skip

    async def start(self) -> None:
        """Accept RPCs."""
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:  # a value, not a flag
        """Answer health checks of the server and of each service."""
        status = health_pb2.HealthCheckResponse
        for service in ("", *_SERVICES):
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def announce_stop(self) -> None:
        """Answer health checks with NOT_SERVING from now on, and end every watch of an evaluation."""
        self._evaluation.drain()
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Refuse new RPCs, and cancel those that still run after `grace_s`."""
        await self._server.stop(grace_s)
