"""Keeps a TorchServe of one's own running: killed or silent, it is started again, and its pool is told where."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from service.errors import SetupError
from service.workers.torchserve.channel import Address

__all__ = ["Supervised", "Supervisor", "Watched"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.2
_SILENT_S = 60.0  # a process whose management does not answer for so long is stuck
_HEALTHY_S = 60.0  # one that ran for so long is started again at once
_LONGEST_PAUSE_S = 30.0
_REASON = "TorchServe was restarted; workers are loading"


class Supervised(Protocol):
    """A process: `EmbeddedTorchServe`."""

    async def start(self) -> Address:
        """Start it; SetupError says why it cannot be."""
        ...

    async def stop(self, patience_s: float = ...) -> None:
        """End all of it that is left, and remove its folder."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        ...

    def log_tail(self) -> str:
        """The end of its log."""
        ...


class Watched(Protocol):
    """The pool that calls it: `TorchServePool`."""

    async def retire(self, index: int, reason: str) -> None:
        """Let go of an address."""
        ...

    def replace(self, index: int, address: Address) -> None:
        """Take another in its place."""
        ...

    def silent_s(self, index: int) -> float:
        """How long its management has not answered."""
        ...


class Supervisor:
    """Watches one process that has been started.

    Args:
        process: to be kept running.
        pool: calls it.
        index: its place in the pool.
    """

    def __init__(self, process: Supervised, pool: Watched, index: int) -> None:
        self._process = process
        self._pool = pool
        self._index = index
        self._failures = 0

    async def run(self) -> None:
        """Start it again whenever it must be, until cancelled; whoever cancels stops the process."""
        while True:
            began_s = time.monotonic()
            trouble = await self._trouble()
            if time.monotonic() - began_s >= _HEALTHY_S:
                self._failures = 0
            _log.error("TorchServe %s and is started again; the end of its log:\n%s", trouble, self._process.log_tail(),
                       extra={"action": "torchserve_restarted"})  # fmt: skip
            try:
                await self._pool.retire(self._index, _REASON)
            except Exception:  # noqa: BLE001  # whatever a watcher of the pool says, TorchServe is started again
                _log.exception("letting go of a TorchServe failed")
            self._pool.replace(self._index, await self._start_again())

    async def _trouble(self) -> str:
        """Wait for the process to end or to fall silent."""
        while self._process.is_running:
            if self._pool.silent_s(self._index) > _SILENT_S:
                return f"has not answered for {_SILENT_S:g} s"
            await asyncio.sleep(_LOOK_S)
        return "ended"

    async def _start_again(self) -> Address:
        while True:
            try:
                await self._process.stop(patience_s=0)  # what is left of it: workers outlive their Java
                await asyncio.sleep(_pause_s(self._failures))
                self._failures += 1
                return await self._process.start()
            except SetupError as error:
                _log.error("TorchServe cannot be started again yet: %s", error)
            except Exception:  # noqa: BLE001  # a full disk today is no reason to give up for ever
                _log.exception("TorchServe cannot be started again yet")


def _pause_s(failures: int) -> float:
    """0, 1, 2, 4, … s."""
    return min(_LONGEST_PAUSE_S, 2.0 ** min(failures - 1, 10)) if failures else 0.0
