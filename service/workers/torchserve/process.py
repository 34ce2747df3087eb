"""A TorchServe process of the gateway's own: started, found by its listening sockets, and ended with its workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import psutil

from fount.archive import MANIFEST_FILE
from fount.environment import python_command
from service.errors import SetupError
from service.workers.torchserve.channel import Address, TorchServeChannel, read_tokens
from service.workers.torchserve.launch import KEY_FILE, LOG_FILE, Launch, TorchServeConfig, make_folder, prepare

__all__ = ["TorchServeProcess"]

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.05
_OUTPUT_FILE = "output.log"

# Becomes TorchServe after the kernel is set to end it when this process dies, however it dies (1 is PR_SET_PDEATHSIG,
# on Linux). A program of its own, because forking next to gRPC's threads is not safe.
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


class TorchServeProcess:
    """A TorchServe process group with a temporary folder; stopped, it can be started again, in another folder.

    Attributes:
        launch: how it was started; None before.
    """

    def __init__(self, config: TorchServeConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.launch: Launch | None = None

    async def start(self) -> Address:
        """Start it and wait until its gRPC answers; workers may still be loading.

        Returns:
            Where it listens, with the token.

        Raises:
            SetupError: it cannot be prepared, or it ended or did not answer; contains the end of its log.
        """
        self._folder = make_folder()
        try:
            self.launch = await _run_to_end(partial(prepare, self._config, self._folder))
            with (self._folder / _OUTPUT_FILE).open("wb") as output:
                self._process = subprocess.Popen(
                    python_command("-c", _END_WITH_PARENT, *self.launch.command),
                    env=self.launch.environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            return await self._wait_for_address()
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
        """Whether the Java process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of its log."""
        folder, text = self._folder, list[str]()
        for file in (folder / _OUTPUT_FILE, folder / LOG_FILE) if folder else ():
            with contextlib.suppress(OSError):
                text += file.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])

    async def remove_unpacked(self, name: str, version: str) -> None:
        """Remove what TorchServe unpacked of a model version, which it leaves when the version is unregistered."""
        if self._folder is not None:
            await asyncio.to_thread(_remove_unpacked, self._folder, name, version)

    async def stop(self, grace_s: float = _STOP_S) -> None:
        """End it and its workers, and remove its folder.

        Args:
            grace_s: how long it may take to end by itself before it is killed.
        """
        if self._process is not None:
            await asyncio.to_thread(_end_group, self._process, grace_s)
            self._process = None
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    async def _wait_for_address(self) -> Address:
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
        """Determine which of its two listening sockets is which; None while they do not answer."""
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


def _remove_unpacked(folder: Path, name: str, version: str) -> None:
    for manifest in folder.glob(f"tmp/models/*/{MANIFEST_FILE}"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            model = json.loads(manifest.read_text())["model"]
            if (model["modelName"], model["modelVersion"]) == (name, version):
                shutil.rmtree(manifest.parents[1])


async def _run_to_end(work: Callable[[], Result]) -> Result:
    """Run blocking work in a thread; when cancelled, wait for its end, so that it leaves nothing behind."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _listening_ports(pid: int) -> list[int]:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return []  # it has just ended, which the caller notices by itself
    return sorted(each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN)


def _end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process and all of the session that it leads: workers outlive a Java process that was killed."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        _log.warning("TorchServe did not stop in %g s and is killed", grace_s, extra={"action": "torchserve_killed"})
    ends = time.monotonic() + _STOP_S
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.poll()
        if not _is_alive(process.pid) or time.monotonic() > ends:
            return
        time.sleep(_POLL_S)


def _is_alive(group: int) -> bool:
    """Whether a process group has a process that is not a zombie."""
    for each in psutil.process_iter():
        try:
            if os.getpgid(each.pid) == group and each.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return False
