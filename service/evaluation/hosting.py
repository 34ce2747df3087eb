"""A gateway's evaluations: where they are kept, the servicers that speak of them, runners of its own, and their gauges.

A gateway without a database of jobs has the servicers all the same: they say that evaluations are off, and how to turn
them on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc

from fount.runner.v1 import runner_pb2_grpc
from fount.v1 import evaluation_pb2_grpc
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets
from service.errors import FountServiceError
from service.evaluation.record import Evaluations, State
from service.rpc.evaluation import EvaluationServicer
from service.rpc.reading import ReadingServicer
from service.scheduler.inference import InferenceClient
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # with evaluations on alone
    from service.evaluation.jobs.runner_process import RunnerProcesses

__all__ = ["JOBS_VARIABLE", "Evaluating"]

_log = logging.getLogger(__name__)

JOBS_VARIABLE = "FOUNT_RUNNER_JOBS"
"""How a runner is told the database: its URL may hold a password, and command lines are seen by everyone."""

_USAGE_S = 5.0


class Evaluating:
    """Evaluations of one gateway.

    Args:
        evaluations: where they are kept; None: as the settings say.
        catalog, datasets, inference: what evaluations are about, and the client of the workers.
        metrics: gauges.
        config: the settings.
    """

    def __init__(
        self,
        *,
        evaluations: Evaluations | None,
        catalog: Catalog,
        datasets: Datasets,
        inference: InferenceClient,
        metrics: Metrics,
        config: GatewayConfig,
    ) -> None:
        self._evaluations = evaluations or evaluations_at(config)
        self._metrics, self._config = metrics, config
        self._servicer = EvaluationServicer(
            evaluations=self._evaluations, catalog=catalog, datasets=datasets, config=config
        )
        self._reading = ReadingServicer(catalog, inference)
        self._looking: asyncio.Task[None] | None = None
        self._runners: RunnerProcesses | None = None

    @property
    def on(self) -> bool:
        """Whether evaluations can be asked for."""
        return self._evaluations is not None

    async def open(self) -> None:
        """Open the database.

        Raises:
            SetupError: it cannot be used as configured.
        """
        if self._evaluations is not None:
            await self._evaluations.start()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer at a server."""
        evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(self._servicer, server)
        runner_pb2_grpc.add_ReadingServiceServicer_to_server(self._reading, server)

    async def run(self, server: str) -> None:
        """Start runners that reach this gateway at `server`, and look at what evaluations take from now on."""
        if self._evaluations is None:
            return
        self._looking = asyncio.create_task(self._look(self._evaluations))
        if self._config.runners:
            self._runners = runner_processes(self._config, server)
            await self._runners.start()

    async def drain(self) -> None:
        """End watches and runners; what runners work on is taken up again, here or elsewhere."""
        self._servicer.drain()
        if self._runners:
            await self._runners.close()

    async def close(self) -> None:
        """Let go of the database."""
        if self._looking:
            self._looking.cancel()
        if self._evaluations is not None:
            await self._evaluations.close()

    async def _look(self, evaluations: Evaluations) -> None:
        while True:
            await self._count(evaluations)
            await asyncio.sleep(_USAGE_S)

    async def _count(self, evaluations: Evaluations) -> None:
        try:
            usage = await evaluations.usage()
        except FountServiceError as error:  # it may answer again
            _log.warning("the evaluations could not be counted: %s", error)
            return
        self._metrics.evaluations(
            {state.value: usage.states.get(state, 0) for state in State},
            report_bytes=usage.report_bytes,
            oldest_queued_s=usage.oldest_queued_s,
        )


def evaluations_at(config: GatewayConfig) -> Evaluations | None:
    """Evaluations in the database of the settings; None: they are off.

    Raises:
        SetupError: the URL is none of a database that will do.
    """
    if not config.jobs:
        return None
    import service.rpc.evaluation_request  # noqa: F401  # statistics load slowly: now, rather than under the first request
    from service.evaluation.jobs.durable_evaluations import DurableEvaluations  # databases load slowly, too
    from service.evaluation.jobs.store import Limits

    limits = Limits(keep_days=config.keep_reports_days, report_bytes=config.report_bytes)
    return DurableEvaluations(config.jobs, limits)


def runner_processes(config: GatewayConfig, server: str) -> RunnerProcesses:
    """The runners of a gateway that is reached at `server`."""
    from service.evaluation.jobs.runner_process import RunnerProcesses

    options = ("--server", server, *config.runner_options)
    return RunnerProcesses(config.runners, options, {JOBS_VARIABLE: config.jobs or ""})
