"""Processes of the real stack, as a user would start them."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
FOUNT = str(Path(sys.executable).parent / "fount")
START_S = 300  # of a machine that others use, too


@dataclass
class Served:
    """A running `fount serve`."""

    process: subprocess.Popen[str]
    port: int
    http_port: int
    lines: list[str] = field(default_factory=list)

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def java(self) -> psutil.Process:
        return next(p for p in psutil.Process(self.process.pid).children() if "java" in p.name())

    def workers(self) -> list[psutil.Process]:
        return [p for p in self.java().children() if "python" in p.name()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def environment(home: Path, extra: dict[str, str] | None = None) -> dict[str, str]:
    """As a user's shell: no FOUNT_ variables, a home of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
    return kept | {"HOME": str(home), "PYTHONUNBUFFERED": "1"} | (extra or {})


@contextmanager
def served_by(command: Sequence[str], home: Path, extra: dict[str, str] | None) -> Iterator[Served]:
    """Run a command that serves, on free ports, until the block ends."""
    process = subprocess.Popen(
        [*command], env=environment(home, extra), cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    served = Served(process=process, port=0, http_port=0)
    try:
        wait_for_ports(served)
        yield served
    finally:
        served.stop()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def serving(
    archives: Path, home: Path, *options: str, extra: dict[str, str] | None = None, runners: int = 0
) -> Iterator[Served]:
    """Run `fount serve` until the block ends; what workers measured is shared between tests of the same archives.

    A runner takes seconds of a core at the start, some more at the end, and 160 MiB: only who evaluates has one.
    """
    command = [FOUNT, "serve", "--archives", str(archives), "--port", "0", "--http-port", "0"]
    command += ["--state-dir", str(archives.parent / "state"), "--runners", str(runners), *options]
    with served_by(command, home, extra) as served:
        yield served


def wait_for_ports(served: Served) -> None:
    """Read what the process prints until it names its ports."""
    result: queue.Queue[str] = queue.Queue()
    assert served.process.stdout is not None
    stdout = served.process.stdout

    def read() -> None:
        try:
            for line in stdout:
                served.lines.append(line)
                result.put(line)
        except ValueError:
            pass  # closed at the end of the test

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and (served.process.poll() is None or not result.empty()):
        try:
            line = result.get(timeout=0.2)
        except queue.Empty:
            continue
        if found := re.search(r"gRPC on port (\d+); .* on port (\d+)", line):
            served.port, served.http_port = int(found[1]), int(found[2])
            return
    pytest.fail("fount serve did not come up:\n" + "".join(served.lines))


def run_fount(*arguments: str, home: Path, extra: dict[str, str] | None = None, timeout: float = 120):
    """Run a `fount` command to its end."""
    return subprocess.run(
        [FOUNT, *arguments], env=environment(home, extra), cwd=home, text=True, capture_output=True,
        timeout=timeout, check=False,
    )  # fmt: skip


@contextmanager
def torchserve(
    archives: Path, home: Path, extra: dict[str, str], arguments: Sequence[str] = ("--no-token",)
) -> Iterator[str]:
    """A TorchServe in the foreground, as in a container; gives HOST:INFERENCE/MANAGEMENT."""
    command = [sys.executable, "-P", "-m", "service.workers.torchserve.run", *arguments, "--archives", str(archives)]
    command += ["--state", str(home / "s"), "--inference-port", "0", "--management-port", "0"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], env=environment(home, {"TMPDIR": str(home)} | extra), cwd=home,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield listening(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def listening(pid: int) -> str:
    """Find the two ports of a TorchServe, as HOST:INFERENCE/MANAGEMENT: one alone answers management calls."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        sockets = psutil.Process(pid).net_connections("tcp")
        ports = [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]
        for inference, management in (ports, ports[::-1]) if len(ports) == 2 else ():
            with grpc.insecure_channel(f"127.0.0.1:{management}") as channel:
                path = "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"
                try:
                    channel.unary_unary(path)(b"", timeout=5)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.PERMISSION_DENIED:  # it is the one, and wants its token
                        continue
            return f"127.0.0.1:{inference}/{management}"
    raise AssertionError("TorchServe did not listen")


@contextmanager
def gateway(
    home: Path, *addresses: str, extra: dict[str, str] | None = None, token_file: Path | None = None
) -> Iterator[Served]:
    """`fount gateway` in front of TorchServe processes."""
    options = [part for address in addresses for part in ("--torchserve", address)]
    options += ["--token-file", str(token_file)] if token_file else []
    with served_by([FOUNT, "gateway", "--port", "0", "--http-port", "0", *options], home, extra) as served:
        yield served
