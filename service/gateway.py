"""The gateway: the composition root of servicers, scheduler, worker pool, health and the HTTP side port."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from fount.machine import raise_descriptor_limit
from service.augmentation.copy_filter import PixelCache
from service.augmentation.planner import Planner
from service.caller import Anonymous, CallerPolicy
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets
from service.domain import ModelState
from service.errors import SetupError
from service.evaluation.jobs.hosting import EvaluationHost
from service.rpc.augmentation import AugmentationServicer
from service.rpc.datasets import DatasetServicer
from service.rpc.evaluation import EvaluationServicer
from service.rpc.given import GivenStreams
from service.rpc.interceptor import CallInterceptor
from service.rpc.models import ModelServicer
from service.rpc.plan_store import plan_store_at
from service.rpc.plans import PlanIssuer
from service.rpc.reading import ReadingServicer
from service.rpc.sampling import SamplingServicer
from service.rpc.server import RpcServer
from service.rpc.tickets import TicketKeys
from service.scheduler.inference import InferenceClient
from service.scheduler.scheduler import BatchingScheduler
from service.telemetry.http import SidePort
from service.telemetry.metrics import Metrics
from service.workers import WorkerPool

if TYPE_CHECKING:
    from service.evaluation.jobs.evaluations import Evaluations  # loads database libraries

__all__ = ["Gateway"]

_ALL_ADDRESSES = ("0.0.0.0", "::", "[::]")  # noqa: S104  # compared with, not listened on


class Gateway:
    """A gateway: create it, start it, and stop it, which drains.

    Args:
        pool: its workers; started and closed with it.
        config: its settings.
        policy: identifies callers. Unset: every caller is anonymous with every grant, which is for loopback.
        evaluations: where evaluations are kept; started and closed with it. Unset: as `config` says.

    Attributes:
        pool, catalog, datasets, scheduler, inference, evaluation, metrics: its parts.
        port, http_port: where it listens; 0 before it is started.

    Raises:
        SetupError: the URL of the database of evaluations is invalid.
    """

    def __init__(
        self,
        pool: WorkerPool,
        config: GatewayConfig,
        policy: CallerPolicy | None = None,
        *,
        evaluations: Evaluations | None = None,
    ) -> None:
        self._config = config
        self._policy = policy or Anonymous()
        self.pool = pool
        self.metrics = Metrics(version("fount"))
        self.catalog = Catalog(pool, default_versions=config.default_versions, required_models=config.required_models)
        self.datasets = Datasets(config.datasets)
        self.scheduler = BatchingScheduler(pool, config, self.metrics)
        self.inference = InferenceClient(self.scheduler)
        self.evaluation = EvaluationHost(evaluations=evaluations, metrics=self.metrics, config=config)
        self._side_port = SidePort(self.metrics, self.why_not_ready, self.evaluation.why_waiting)
        self._server: RpcServer | None = None
        self._draining = False
        self._offers_changed = asyncio.Event()
        self._readiness_changed = asyncio.Event()
        self._readiness: asyncio.Task[None] | None = None
        self.port = 0
        self.http_port = 0

    @property
    def evaluates(self) -> bool:
        """Whether evaluations are on."""
        return self.evaluation.evaluations is not None

    async def start(self) -> None:
        """Listen, and begin to look for workers.

        Raises:
            SetupError: a port is taken, or the ticket keys, the folder of plans or the database of evaluations cannot
                be used.
        """
        config = self._config
        await self.evaluation.open()
        self._server = server = self._build_server()
        self.port = server.bind(config.host, config.port)
        self.http_port = await self._side_port.start(config.host, config.http_port)
        await server.start()
        self.pool.watch(self._on_offers_changed)
        self.pool.report_loads(self.metrics.model_loaded, self.metrics.model_evicted)
        self._readiness = asyncio.get_running_loop().create_task(self._publish_readiness(server))
        await self.pool.start()
        host = "127.0.0.1" if config.host in _ALL_ADDRESSES else config.host
        await self.evaluation.run(f"{host}:{self.port}")

    async def stop(self, grace_s: float | None = None) -> None:
        """Drain: refuse new calls, let running ones end within the grace period, then close everything."""
        self._draining = True
        if self._readiness:
            self._readiness.cancel()
        async with AsyncExitStack() as closing:  # the last first, and each also when one before has failed
            for each in (self.pool, self._side_port, self.scheduler, self.datasets, self.evaluation):
                closing.push_async_callback(each.close)
            if self._server:
                await self._server.announce_stop()
            async with asyncio.TaskGroup() as draining:
                draining.create_task(self.evaluation.drain())
                if self._server:
                    draining.create_task(self._server.stop(self._config.drain_grace_s if grace_s is None else grace_s))

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until calls can be answered.

        Raises:
            SetupError: they cannot within `timeout_s`; names what is missing.
        """
        await self._wait_until(lambda: not self.why_not_ready(), timeout_s)

    async def wait_loaded(self, timeout_s: float) -> None:
        """Wait until every model is ready, waits for its first request, or is known not to become ready.

        Raises:
            SetupError: some are still loading after `timeout_s`.
        """

        def loaded() -> bool:
            entries = self.catalog.entries()
            return bool(entries) and all(entry.state is not ModelState.LOADING for entry in entries)

        await self._wait_until(loaded, timeout_s)

    def why_not_ready(self) -> str:
        """Return the reason why calls cannot be answered; empty when they can."""
        if self._draining:
            return "draining"
        if self.catalog.is_ready():
            return ""
        entries = self.catalog.entries()
        reasons = [f"{entry.name} {entry.version}: {entry.reason}" for entry in entries if not entry.ready]
        absent = self._config.required_models - {entry.name for entry in entries}
        reasons += [f"{name}: required, and no worker has it" for name in sorted(absent)]
        if not self.pool.is_discovered():
            reasons.append("not every TorchServe has answered yet; the log contains the reason")
        return "; ".join(reasons) or "no workers found"

    async def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._offers_changed.clear()
                    await self._offers_changed.wait()
        except TimeoutError as error:
            raise SetupError(f"not ready after {timeout_s:g} s: {self.why_not_ready()}") from error

    def _build_server(self) -> RpcServer:
        config, cache = self._config, PixelCache()
        augmentation = AugmentationServicer(
            issuer=PlanIssuer(
                datasets=self.datasets,
                catalog=self.catalog,
                planner=Planner(catalog=self.catalog, inference=self.inference, cache=cache),
                keys=TicketKeys.at(config.ticket_keys),
            ),
            plans=plan_store_at(config.plans),
            catalog=self.catalog,
            datasets=self.datasets,
            inference=self.inference,
            cache=cache,
            metrics=self.metrics,
            config=config,
        )
        given = GivenStreams(catalog=self.catalog, inference=self.inference, metrics=self.metrics, config=config)
        evaluation = EvaluationServicer(
            evaluations=self.evaluation.evaluations,
            catalog=self.catalog,
            datasets=self.datasets,
            config=config,
            why_waiting=self.evaluation.why_waiting,
        )
        return RpcServer(
            interceptor=CallInterceptor(self._policy, self.metrics, config),
            max_request_bytes=config.max_request_bytes,
            max_connections=raise_descriptor_limit() // 2,  # the others are for workers, files and the side port
            models=ModelServicer(self.catalog),
            datasets=DatasetServicer(self.datasets),
            sampling=SamplingServicer(self.catalog, self.scheduler, self.metrics),
            given=given,
            augmentation=augmentation,
            evaluation=evaluation,
            reading=ReadingServicer(self.catalog, self.inference),
        )

    def _on_offers_changed(self) -> None:
        self._offers_changed.set()
        self._readiness_changed.set()

    async def _publish_readiness(self, server: RpcServer) -> None:
        """Update health checks and metrics after every change, one at a time, so that the last update is the latest."""
        published: tuple[object, ...] = ()
        while not self._draining:
            self._readiness_changed.clear()
            entries, is_discovered = self.catalog.entries(), self.pool.is_discovered()
            if published and published[0] is entries and published[1] == is_discovered:
                await self._readiness_changed.wait()  # the capacity alone has changed
                continue
            published = entries, is_discovered
            ready = not self.why_not_ready()
            await server.set_serving(serving=ready)
            models: dict[tuple[str, str], Counter[str]] = {}
            for entry in entries:
                workers = models.setdefault((entry.name, entry.version), Counter())
                for offer in entry.ready:  # several addresses may have the same numerics
                    workers[offer.numerics] += offer.workers
            found = Counter(entry.state for entry in entries)
            self.metrics.readiness(models, {each.value: found[each] for each in ModelState}, ready=ready)
            await self._readiness_changed.wait()
