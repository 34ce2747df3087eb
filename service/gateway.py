"""One gateway: servicers, scheduler, pool, health and the side port, put together; started, drained, stopped."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fount.v1 import (
    augmentation_pb2,
    augmentation_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    evaluation_pb2,
    model_pb2,
    model_pb2_grpc,
    sampling_pb2,
    sampling_pb2_grpc,
)
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.plan_store import plans_at
from service.augmentation.planner import Planner
from service.augmentation.tickets import TicketKeys
from service.caller import Anonymous, CallerPolicy
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets
from service.domain import ModelState
from service.errors import SetupError
from service.evaluation.hosting import Evaluating
from service.evaluation.record import Evaluations
from service.rpc.augmentation import AugmentationServicer
from service.rpc.datasets import DatasetServicer
from service.rpc.interceptor import CallInterceptor
from service.rpc.models import ModelServicer
from service.rpc.sampling import SamplingServicer
from service.scheduler.inference import InferenceClient
from service.scheduler.scheduler import BatchingScheduler
from service.telemetry.http import SidePort
from service.telemetry.metrics import Metrics
from service.workers import WorkerPool

__all__ = ["Gateway"]

_log = logging.getLogger(__name__)

_SERVICES = (
    augmentation_pb2.DESCRIPTOR.services_by_name["AugmentationService"].full_name,
    dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
    evaluation_pb2.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name,
)
_PENDING_CALLS = 1 << 16
_MOST_ANSWERED = 64 << 20  # bytes in one message: features of 4 MiB of images; chunks and pages are far smaller
_EVERYWHERE = ("0.0.0.0", "::", "[::]")  # noqa: S104  # compared with, not listened on


class Gateway:
    """A running gateway.

    Args:
        pool: its workers; started and closed with it.
        config: how it runs.
        policy: who callers are. Unset: everyone is anonymous with every grant, which is for loopback.
        evaluations: where evaluations are kept; started and closed with it. Unset: as `config` says.

    Raises:
        SetupError: the URL of the database of evaluations is none.
    """

    def __init__(
        self,
        pool: WorkerPool,
        config: GatewayConfig,
        policy: CallerPolicy | None = None,
        *,
        evaluations: Evaluations | None = None,
    ) -> None:
        self._pool = pool
        self._config = config
        self.metrics = Metrics(version("fount"))
        self.catalog = Catalog(pool, default_versions=config.default_versions, required_models=config.required_models)
        self.datasets = Datasets(config.datasets)
        self._scheduler = BatchingScheduler(pool, config, self.metrics)
        self.inference = InferenceClient(self._scheduler)
        self._evaluating = Evaluating(
            evaluations=evaluations,
            catalog=self.catalog,
            datasets=self.datasets,
            inference=self.inference,
            metrics=self.metrics,
            config=config,
        )
        self._health = health.aio.HealthServicer()
        self._side = SidePort(self.metrics, self.why_not_ready)
        self._interceptor = CallInterceptor(policy or Anonymous(), self.metrics)
        self._server: grpc.aio.Server | None = None
        self._draining = False
        self._ready_changed = asyncio.Event()
        self._untold = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self.port = 0
        self.http_port = 0

    @property
    def evaluates(self) -> bool:
        """Whether evaluations can be asked for."""
        return self._evaluating.on

    async def start(self) -> None:
        """Listen, and begin to look for workers.

        Raises:
            SetupError: a port is taken, or the ticket keys, the folder of plans or the database of evaluations cannot
                be used.
        """
        await self._evaluating.open()
        self._server = self._build_server()
        address = f"{self._config.host}:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SetupError(f"cannot listen on {address} for gRPC; it is taken or may not be used; "
                             "choose another with --port") from error  # fmt: skip
        self.http_port = await self._side.start(self._config.host, self._config.http_port)
        await self._server.start()
        self._pool.watch(self._offers_changed)
        self._telling = asyncio.get_running_loop().create_task(self._tell_changes())
        await self._pool.start()
        host = "127.0.0.1" if self._config.host in _EVERYWHERE else self._config.host
        await self._evaluating.run(f"{host}:{self.port}")

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until calls can be answered.

        Raises:
            SetupError: they cannot within `timeout_s`; says what is missing.
        """
        await self._wait_until(lambda: not self.why_not_ready(), timeout_s)

    async def wait_settled(self, timeout_s: float) -> None:
        """Wait until every model is ready or known not to be.

        Raises:
            SetupError: some are still loading after `timeout_s`.
        """

        def settled() -> bool:
            entries = self.catalog.entries()
            return bool(entries) and all(entry.state is not ModelState.LOADING for entry in entries)

        await self._wait_until(settled, timeout_s)

    async def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._ready_changed.clear()
                    await self._ready_changed.wait()
        except TimeoutError as error:
            raise SetupError(f"not ready after {timeout_s:g} s: {self.why_not_ready()}") from error

    async def stop(self, grace_s: float | None = None) -> None:
        """Drain: refuse new calls, let running ones end within the grace, then let go of everything."""
        self._draining = True
        if self._telling:
            self._telling.cancel()
        await self._health.enter_graceful_shutdown()
        async with asyncio.TaskGroup() as ending:
            ending.create_task(self._evaluating.drain())
            if self._server:
                grace = self._config.drain_grace_s if grace_s is None else grace_s
                ending.create_task(self._server.stop(grace))
        await self._evaluating.close()
        await self._scheduler.close()
        await self._side.close()
        await self._pool.close()

    def why_not_ready(self) -> str:
        """An empty string when ready, else one sentence."""
        if self._draining:
            return "draining"
        if self.catalog.is_ready():
            return ""
        entries = self.catalog.entries()
        waits = [f"{entry.name} {entry.version}: {entry.reason}" for entry in entries if not entry.ready]
        absent = self._config.required_models - {entry.name for entry in entries}
        waits += [f"{name}: required, and no worker has it" for name in sorted(absent)]
        if not self._pool.has_looked():
            waits.append("not every TorchServe has answered yet; the log says why")
        return "; ".join(waits) or "no workers found"

    def _build_server(self) -> grpc.aio.Server:
        options = [
            ("grpc.max_receive_message_length", self._config.max_request_bytes),
            ("grpc.max_send_message_length", _MOST_ANSWERED),
            ("grpc.so_reuseport", 0),
            # Beyond these, grpc drops calls at random, as CANCELLED; ours are refused in words by the scheduler.
            ("grpc.server.max_pending_requests", _PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING_CALLS),
        ]
        server = grpc.aio.server(interceptors=[self._interceptor], options=options)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self.catalog), server)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetServicer(self.datasets), server)
        sampling = SamplingServicer(self.catalog, self._scheduler, self.metrics)
        sampling_pb2_grpc.add_SamplingServiceServicer_to_server(sampling, server)
        augmentation_pb2_grpc.add_AugmentationServiceServicer_to_server(self._augmentation(), server)
        self._evaluating.add_to(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    def _augmentation(self) -> AugmentationServicer:
        copies = CopyFilters()
        planner = Planner(
            datasets=self.datasets,
            catalog=self.catalog,
            inference=self.inference,
            copies=copies,
            keys=TicketKeys.at(self._config.ticket_keys),
            plans=plans_at(self._config.plans),
        )
        return AugmentationServicer(
            planner=planner,
            catalog=self.catalog,
            datasets=self.datasets,
            inference=self.inference,
            copies=copies,
            metrics=self.metrics,
            config=self._config,
        )

    def _offers_changed(self) -> None:
        self._ready_changed.set()
        self._untold.set()

    async def _tell_changes(self) -> None:
        """Tell health of every change, one after the other, so that the last word is the latest."""
        while not self._draining:
            self._untold.clear()
            await self._tell_health()
            await self._untold.wait()

    async def _tell_health(self) -> None:
        ready = not self.why_not_ready()
        serving = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *_SERVICES):
            await self._health.set(service, serving)
        models: dict[tuple[str, str], Counter[str]] = {}
        for entry in self.catalog.entries():
            counted = models.setdefault((entry.name, entry.version), Counter())
            for offer in entry.ready:  # several addresses may have the same numerics
                counted[offer.numerics] += offer.workers
        self.metrics.readiness(ready, models)
