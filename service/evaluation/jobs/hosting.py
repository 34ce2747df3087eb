"""The evaluations of one gateway: its job database, its runner processes and its usage gauges.

`Gateway` starts, drains and closes an `EvaluationHost`, and builds the servicers on its `evaluations`. Without a job
database there are no evaluations; the servicer then answers every call with how to turn them on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fount.environment import child_environment, python_command
from service.config import GatewayConfig
from service.errors import FountServiceError
from service.evaluation.record import State
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # database libraries take long to import, and are needed only when evaluations are on
    from service.evaluation.jobs.evaluations import Evaluations

__all__ = [
    "JOBS_VARIABLE",
    "PARENT_VARIABLE",
    "EvaluationHost",
    "RunnerProcesses",
]

JOBS_VARIABLE = "FOUNT_RUNNER_JOBS"
"""Passes the database URL to runners: it may hold a password, and command lines are visible to every user."""

PARENT_VARIABLE = "FOUNT_RUNNER_PARENT"
"""Passes the process id of the gateway to runners, which stop when that process is gone."""

_USAGE_INTERVAL_S = 5.0
_FIRST_DELAY_S, _MAX_DELAY_S, _STABLE_S = 0.5, 30.0, 60.0  # of restarts
_STOP_S = 12.0  # a step of an evaluation, and a little more
_FORWARD_S = 1.0  # for the last output of a runner that has ended
_TAIL_BYTES, _LINE_CHARACTERS = 4096, 300
_RUNNER_VARIABLES = ("FOUNT_RUNNER_*", "PG*", "*_proxy", "GRPC_*", "SSL_CERT_*")

_log = logging.getLogger(__name__)


class EvaluationHost:
    """Evaluations of one gateway.

    Attributes:
        evaluations: the store that was given, or else the one that `config` names; None: evaluations are off.

    Raises:
        SetupError: the URL in `config` names no supported database.
    """

    def __init__(self, *, evaluations: Evaluations | None, metrics: Metrics, config: GatewayConfig) -> None:
        if evaluations is None and config.jobs:
            from service.evaluation.jobs.evaluations import Evaluations, Limits

            limits = Limits(keep_days=config.keep_reports_days, report_bytes=config.report_bytes)
            evaluations = Evaluations(config.jobs, limits)
        self.evaluations = evaluations
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
            options = ("--server", server, *self._config.runner_options)
            self._runners = RunnerProcesses(self._config.runners, options, {JOBS_VARIABLE: self._config.jobs or ""})
            await self._runners.start()

    def why_waiting(self) -> str:
        """Return why queued evaluations are not started: every runner of this gateway fails; "" otherwise."""
        return self._runners.why_waiting() if self._runners else ""

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


class RunnerProcesses:
    """Runners as child processes: started, restarted when they die, stopped with the gateway.

    Args:
        count: how many.
        args: of `fount runner`.
        env: added to their environment. Secrets belong here, where no list of processes shows them.
    """

    def __init__(self, count: int, args: Sequence[str], env: Mapping[str, str]) -> None:
        self._count, self._args = count, list(args)
        self._env = {**child_environment(_RUNNER_VARIABLES), **env, PARENT_VARIABLE: str(os.getpid())}
        self._supervisors: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._forwarding: dict[int, asyncio.Task[str]] = {}
        self._failed: dict[int, str] = {}  # how the last process of a runner ended, until one has run for a while

    async def start(self) -> None:
        """Start the runners, without waiting until they are ready."""
        self._supervisors = [asyncio.create_task(self._supervise(number)) for number in range(self._count)]

    async def close(self) -> None:
        """Terminate the runners, and kill those that do not stop in time."""
        for each in self._supervisors:
            each.cancel()
        if self._supervisors:
            await asyncio.wait(self._supervisors)
        await asyncio.gather(*(_stop(each) for each in self._processes.values()))
        if self._forwarding:
            await asyncio.wait(self._forwarding.values(), timeout=_FORWARD_S)
        for forwarding in self._forwarding.values():
            forwarding.cancel()

    def why_waiting(self) -> str:
        """Return how runners ended, if none works; "" otherwise."""
        if len(self._failed) < self._count:
            return ""
        return f"no runner works: the last one {next(iter(self._failed.values()))}; see the gateway's log"

    async def _supervise(self, number: int) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            start_s = time.monotonic()
            try:
                ended = await self._run(number)
            except OSError as error:  # no memory or process left at the moment
                ended = f"could not be started ({error})"
            if time.monotonic() - start_s > _STABLE_S:
                delay_s = _FIRST_DELAY_S
            self._failed[number] = ended
            _log.warning("a runner %s; it is restarted in %.1f s", ended, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(_MAX_DELAY_S, 2 * delay_s)

    async def _run(self, number: int) -> str:
        """Run one process to its end, and return how it ended."""
        command = python_command("-m", "fount", "runner", *self._args)
        process = await asyncio.create_subprocess_exec(
            *command, env=self._env, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stderr is not None
        self._processes[number] = process
        self._forwarding[number] = forwarding = asyncio.create_task(_forward(process.stderr))
        stable = asyncio.get_running_loop().call_later(_STABLE_S, self._failed.pop, number, None)
        try:
            status = await process.wait()
        finally:
            stable.cancel()
        await asyncio.wait([forwarding], timeout=_FORWARD_S)  # its own children may keep the pipe open
        said = forwarding.result() if forwarding.done() else ""
        return f"ended with status {status}{f' ({said})' if said else ''}"


async def _forward(errors: asyncio.StreamReader) -> str:
    """Copy the error output of a runner to that of this process until it ends; return its last line."""
    tail = b""
    while part := await errors.read(1 << 16):
        tail = (tail + part)[-_TAIL_BYTES:]
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(part.decode(errors="replace"))
            sys.stderr.flush()
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:_LINE_CHARACTERS] if lines else ""


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
