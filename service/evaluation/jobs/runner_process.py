"""Runners as child processes of a gateway: started, started again when they die, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence

__all__ = ["PARENT", "RunnerProcesses"]

_log = logging.getLogger(__name__)

PARENT = "FOUNT_RUNNER_PARENT"
"""In a runner's environment: the id of the process it is to end with."""

_FIRST_PAUSE_S, _MOST_PAUSE_S, _SOUND_S = 0.5, 30.0, 60.0
_GRACE_S = 12.0  # a step, and a little more


class RunnerProcesses:
    """Keeps so many runners alive.

    Args:
        count: how many.
        args: of `fount runner`, beside what is in the environment.
        env: added to this process's environment; secrets go here, where no list of processes shows them.
    """

    def __init__(self, count: int, args: Sequence[str], env: Mapping[str, str]) -> None:
        self._count, self._args = count, list(args)
        self._env = {**os.environ, **env, PARENT: str(os.getpid())}
        self._keeping: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    @property
    def pids(self) -> list[int]:
        """Those of the runners that are alive, in order."""
        return [each.pid for _, each in sorted(self._processes.items()) if each.returncode is None]

    async def start(self) -> None:
        """Start them; they are on their way when this returns."""
        self._keeping = [asyncio.create_task(self._keep(number)) for number in range(self._count)]

    async def close(self) -> None:
        """End them: asked first, killed when they do not heed it."""
        for each in self._keeping:
            each.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping)
        await asyncio.gather(*(self._end(each) for each in self._processes.values()))

    async def _keep(self, number: int) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                ended = f"ended with status {await self._run(number)}"
            except OSError as error:  # no memory or process left, for now
                ended = f"could not be started ({error})"
            if time.monotonic() - began > _SOUND_S:
                pause = _FIRST_PAUSE_S
            _log.warning("a runner %s, and is started again in %.1f s", ended, pause)
            await asyncio.sleep(pause)
            pause = min(_MOST_PAUSE_S, 2 * pause)

    async def _run(self, number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fount", "runner", *self._args, env=self._env, start_new_session=True
        )
        self._processes[number] = process
        return await process.wait()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
