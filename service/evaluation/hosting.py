"""The evaluations of one gateway: its job database, its runner processes and its usage gauges.

`Gateway` starts, drains and closes an `EvaluationHost`, and builds the servicers on its `evaluations`. Without a job
database there are no evaluations; the servicer then answers every call with how to turn them on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from service.config import GatewayConfig
from service.errors import FountServiceError
from service.evaluation.record import State
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # database libraries take long to import, and are needed only when evaluations are on
    from service.evaluation.jobs.evaluations import Evaluations
    from service.evaluation.jobs.runner_process import RunnerProcesses

__all__ = ["JOBS_VARIABLE", "EvaluationHost", "open_evaluations", "runner_processes"]

JOBS_VARIABLE = "FOUNT_RUNNER_JOBS"
"""Passes the database URL to runners: it may hold a password, and command lines are visible to every user."""

_USAGE_INTERVAL_S = 5.0

_log = logging.getLogger(__name__)


class EvaluationHost:
    """Evaluations of one gateway.

    Args:
        evaluations: the store of evaluations; None: the one that `config` names, if any.
        metrics: the gauges to update.
        config: database, limits and number of runners.

    Attributes:
        evaluations: the store of evaluations; None: evaluations are off.
    """

    def __init__(self, *, evaluations: Evaluations | None, metrics: Metrics, config: GatewayConfig) -> None:
        self.evaluations = evaluations or open_evaluations(config)
        self._metrics, self._config = metrics, config
        self._gauges: asyncio.Task[None] | None = None
        self._runners: RunnerProcesses | None = None

    async def open(self) -> None:
        """Open the database.

        Raises:
            SetupError: the database cannot be used as configured.
        """
        if self.evaluations is not None:
            await self.evaluations.start()

    async def run(self, server: str) -> None:
        """Start the runner processes, which reach this gateway at `server`, and update the gauges from now on."""
        if self.evaluations is None:
            return
        self._gauges = asyncio.create_task(self._update_gauges_forever())
        if self._config.runners:
            self._runners = runner_processes(self._config, server)
            await self._runners.start()

    async def drain(self) -> None:
        """Stop the runner processes; another runner, or the next start, continues their evaluations."""
        if self._runners:
            await self._runners.close()

    async def close(self) -> None:
        """Close the database."""
        if self._gauges:
            self._gauges.cancel()
        if self.evaluations is not None:
            await self.evaluations.close()

    async def update_gauges(self) -> None:
        """Export how many evaluations there are and what they occupy; leave the gauges as they are on an error."""
        if self.evaluations is None:
            return
        try:
            usage = await self.evaluations.usage()
        except FountServiceError as error:  # the database may answer again later
            _log.warning("the evaluations could not be counted: %s", error)
            return
        self._metrics.evaluations(
            {state.value: usage.states.get(state, 0) for state in State},
            report_bytes=usage.report_bytes,
            oldest_queued_s=usage.oldest_queued_s,
        )

    async def _update_gauges_forever(self) -> None:
        while True:
            await self.update_gauges()
            await asyncio.sleep(_USAGE_INTERVAL_S)


def open_evaluations(config: GatewayConfig) -> Evaluations | None:
    """Construct the store of evaluations that the settings name; None: evaluations are off.

    Raises:
        SetupError: the URL names no supported database.
    """
    if not config.jobs:
        return None
    from service.evaluation.jobs.evaluations import Evaluations, Limits

    return Evaluations(config.jobs, Limits(keep_days=config.keep_reports_days, report_bytes=config.report_bytes))


def runner_processes(config: GatewayConfig, server: str) -> RunnerProcesses:
    """Construct the runner processes of a gateway that listens at `server`."""
    from service.evaluation.jobs.runner_process import RunnerProcesses

    options = ("--server", server, *config.runner_options)
    return RunnerProcesses(config.runners, options, {JOBS_VARIABLE: config.jobs or ""})
