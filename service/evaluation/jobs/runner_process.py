"""Runners as child processes of a gateway: started, restarted when they die, stopped with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence

__all__ = ["PARENT_VARIABLE", "RunnerProcesses"]

PARENT_VARIABLE = "FOUNT_RUNNER_PARENT"
"""In a runner's environment: the process id of its gateway; the runner stops when that process is gone."""

_FIRST_DELAY_S, _MAX_DELAY_S, _STABLE_S = 0.5, 30.0, 60.0
_STOP_S = 12.0  # a step, and a little more

_log = logging.getLogger(__name__)


class RunnerProcesses:
    """Keeps a number of runners alive.

    Args:
        count: how many.
        args: of `fount runner`.
        env: added to this process's environment; secrets belong here, where no list of processes shows them.
    """

    def __init__(self, count: int, args: Sequence[str], env: Mapping[str, str]) -> None:
        self._count, self._args = count, list(args)
        self._env = {**os.environ, **env, PARENT_VARIABLE: str(os.getpid())}
        self._supervisors: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    @property
    def pids(self) -> list[int]:
        """Process ids of the runners that are alive, in order."""
        return [each.pid for _, each in sorted(self._processes.items()) if each.returncode is None]

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

    async def _supervise(self, number: int) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            start_s = time.monotonic()
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "fount", "runner", *self._args, env=self._env, start_new_session=True
                )
                self._processes[number] = process
                ended = f"ended with status {await process.wait()}"
            except OSError as error:  # no memory or process left at the moment
                ended = f"could not be started ({error})"
            if time.monotonic() - start_s > _STABLE_S:
                delay_s = _FIRST_DELAY_S
            _log.warning("a runner %s; it is restarted in %.1f s", ended, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(_MAX_DELAY_S, 2 * delay_s)


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
