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
from pathlib import Path

import grpc
import psutil

from service.errors import SetupError
from service.workers.torchserve.launch import KEY_FILE, LOG_FILE, Launch, TorchServeConfig, make_folder, prepare
from service.workers.torchserve.wire import Address, TorchServeChannel, read_tokens

__all__ = ["EmbeddedTorchServe"]

_log = logging.getLogger(__name__)

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
    """One TorchServe process group in a temporary folder.

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
            self.launch = prepare(self._config, self._folder)
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
            with contextlib.suppress(FileNotFoundError):
                told += file.read_text(errors="replace").splitlines()
        return "\n".join(told[-lines:])

    async def stop(self) -> None:
        """End it and its workers, and remove its folder."""
        if self._process is not None:
            await asyncio.to_thread(_end_tree, self._process)
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
        ports = sorted(
            connection.laddr.port
            for connection in psutil.Process(self.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        )
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


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        _log.warning("TorchServe did not stop in %g s and is killed", _STOP_S, extra={"action": "torchserve_killed"})
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group is ours: it was started as a session of its own
    process.wait()
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family, timeout=_STOP_S)
