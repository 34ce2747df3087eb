"""A TorchServe of one's own: started, found by its sockets, stopped without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import psutil

from service.domain import Call, ModelState, Reply, Target
from service.errors import NotReady, SetupError
from service.workers import Offer
from service.workers.torchserve.channel import Address, TorchServeChannel, read_tokens
from service.workers.torchserve.launch import KEY_FILE, LOG_FILE, Launch, TorchServeConfig, make_folder, prepare
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.supervisor import Supervisor

__all__ = ["EmbeddedPool", "EmbeddedTorchServe"]


_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.05
_OUTPUT_FILE = "output.log"

# Becomes TorchServe after asking the kernel to end it when this process dies, however it dies (1 is PR_SET_PDEATHSIG,
# on Linux). A program of its own because forking here, beside gRPC's threads, is not safe.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
parent = os.getppid()
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (OSError, AttributeError):
    pass
if os.getppid() == parent:
    os.execv(sys.argv[1], sys.argv[1:])
"""


class EmbeddedTorchServe:
    """One TorchServe process group in a temporary folder; stopped, it can be started again, in another.

    Args:
        config: how it runs.
    """

    def __init__(self, config: TorchServeConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.launch: Launch | None = None

    async def start(self) -> Address:
        """Start it and wait until its gRPC answers; workers may still be loading.

        Returns:
            Where to reach it, with the token.

        Raises:
            SetupError: it cannot be prepared, or ended or stayed silent; holds the end of its log.
        """
        self._folder = make_folder()
        try:
            self.launch = await _to_the_end(partial(prepare, self._config, self._folder))
            with (self._folder / _OUTPUT_FILE).open("wb") as output:
                self._process = subprocess.Popen(
                    (sys.executable, "-c", _END_WITH_PARENT, *self.launch.command),
                    env=self.launch.environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            return await self._find()
        except BaseException:
            await self.stop()
            raise

    @property
    def pid(self) -> int:
        """The Java process."""
        if self._process is None:
            raise SetupError("TorchServe was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log."""
        folder, told = self._folder, list[str]()
        for file in (folder / _OUTPUT_FILE, folder / LOG_FILE) if folder else ():
            with contextlib.suppress(OSError):
                told += file.read_text(errors="replace").splitlines()
        return "\n".join(told[-lines:])

    async def stop(self, patience_s: float = _STOP_S) -> None:
        """End it and its workers, and remove its folder.

        Args:
            patience_s: how long it may take to end by itself before it is killed.
        """
        if self._process is not None:
            await asyncio.to_thread(_end_group, self._process, patience_s)
            self._process = None
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    async def _find(self) -> Address:
        try:
            async with asyncio.timeout(_START_S):
                while True:
                    if not self.is_running:
                        raise SetupError(f"TorchServe ended while starting; the end of its log:\n{self.log_tail()}")
                    if address := await self._probe():
                        return address
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise SetupError(f"TorchServe did not answer within {_START_S:g} s; "
                             f"the end of its log:\n{self.log_tail()}") from error  # fmt: skip

    async def _probe(self) -> Address | None:
        """Look whether two gRPC sockets listen, and which is which."""
        token_file = self._folder / KEY_FILE if self._folder and self._config.token else None
        if token_file and not read_tokens(token_file):
            return None
        ports = _listening_ports(self.pid)
        if len(ports) < 2:
            return None
        for inference, management in (ports, reversed(ports)):
            address = Address(
                inference=f"127.0.0.1:{inference}",
                management=f"127.0.0.1:{management}",
                token_file=token_file,
            )
            channel = TorchServeChannel(address)
            try:
                await channel.list_models()
            except grpc.aio.AioRpcError:
                continue
            finally:
                await channel.close()
            return address
        return None


async def _to_the_end(work: Callable[[], Result]) -> Result:
    """Do blocking work beside the event loop; when cancelled, wait for its end, so that it leaves nothing behind."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


def _listening_ports(pid: int) -> list[int]:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return []  # it ended just now, which is told by whoever waits for it
    return sorted(each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN)


def _end_group(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """End a process and all of its session, which it leads: workers outlive a Java that was killed."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        _log.warning("TorchServe did not stop in %g s and is killed", patience_s, extra={"action": "torchserve_killed"})
    ends = time.monotonic() + _STOP_S
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.poll()
        if not _lives(process.pid) or time.monotonic() > ends:
            return
        time.sleep(_POLL_S)


def _lives(group: int) -> bool:
    """Whether any process of the group does more than wait to be collected by its parent."""
    for each in psutil.process_iter():
        try:
            if os.getpgid(each.pid) == group and each.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return False


# FOLDED FROM service.workers.torchserve.embedded:
# The pool of `fount serve`: a TorchServe of the gateway's own, started, kept running and stopped with it.


class EmbeddedPool:
    """One or more TorchServe processes, and the pool over them.

    Args:
        configs: one a process.
        refused: what was left out before there was an archive; listed unless a process serves it.
    """

    def __init__(self, *configs: TorchServeConfig, refused: Sequence[Offer] = ()) -> None:
        self._never_packed = tuple(refused)
        self.processes = [EmbeddedTorchServe(config) for config in configs]
        self._pool: TorchServePool | None = None
        self._watchers: list[Callable[[], None]] = []
        self._guards: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every process, and begin to watch its workers.

        Raises:
            SetupError: one cannot be started.
        """
        self._pool = TorchServePool([await process.start() for process in self.processes])
        for changed in self._watchers:
            self._pool.watch(changed)
        await self._pool.start()
        for index, process in enumerate(self.processes):
            supervisor = Supervisor(process, self._pool, index)
            self._guards.append(asyncio.get_running_loop().create_task(supervisor.run()))

    async def close(self) -> None:
        """End every process and remove its folder."""
        for guard in self._guards:
            guard.cancel()
        await asyncio.gather(*self._guards, return_exceptions=True)  # a start under way is undone
        if self._pool:
            await self._pool.close()
        await asyncio.gather(*(process.stop() for process in self.processes))

    def offers(self) -> tuple[Offer, ...]:
        """What the workers offer, what is still to come, and why refused archives are not among it."""
        offers = self._pool.offers() if self._pool else ()
        known = {(offer.name, offer.version) for offer in offers}
        return (*offers, *self._awaited(known), *self._refused(known))

    def is_discovered(self) -> bool:
        """Whether every process has told what it serves, at least once."""
        return self._pool is not None and self._pool.is_discovered()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever offers may have changed."""
        self._watchers.append(changed)
        if self._pool:
            self._pool.watch(changed)

    def workers(self, target: Target) -> int:
        """How many ready workers a target has now."""
        return self._pool.workers(target) if self._pool else 0

    def capacity(self, target: Target) -> int:
        """How many more calls its workers take now; see `WorkerPool.room`."""
        return self._pool.capacity(target) if self._pool else 0

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Have one worker do a call; see `WorkerPool.call`."""
        if self._pool is None:
            raise NotReady("TorchServe is starting")
        return await self._pool.call(call, timeout_s=timeout_s)

    def _awaited(self, known: set[tuple[str, str]]) -> list[Offer]:
        return [
            Offer(name=archive.name, version=archive.version, reason="TorchServe is starting")
            for process in self.processes
            for archive in (process.launch.archives if process.launch else ())
            if (archive.name, archive.version) not in known
        ]

    def _refused(self, known: set[tuple[str, str]]) -> list[Offer]:
        """An unusable archive is named after its file: `<name>-<version>.mar`."""
        offers = [offer for offer in self._never_packed if (offer.name, offer.version) not in known]
        for process in self.processes:
            for path, reason in (process.launch.refused if process.launch else {}).items():
                name, _, version = path.stem.rpartition("-")
                if name and (name, version) not in known:
                    offers.append(Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))
        return offers
