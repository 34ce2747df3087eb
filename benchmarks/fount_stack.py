"""Fount as an operator starts it: `fount serve`, and a gateway in front of two TorchServe processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copytree, ignore_patterns
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from benchmarks.child import ROOT
from benchmarks.plan import GATEWAY_OPTIONS, MODEL, Layout, Precision, worker_options
from benchmarks.processes import Server, end_group, roles_below, workers_of
from benchmarks.torchserve_alone import StartError, find_address, private_folder

__all__ = ["fount_before_two", "fount_serve"]

_FOUNT = (sys.executable, "-m", "fount")
_PORTS = ("--port", "0", "--http-port", "0", "--require", MODEL)
_SAID = re.compile(r"gRPC on port (\d+); .* on port (\d+)")
_READY_S, _POLL_S = 180.0, 0.2


@contextmanager
def fount_serve(archives: Path, state: Path, layout: Layout, precision: Precision) -> Iterator[Server]:
    """Run `fount serve` until the block ends.

    Raises:
        StartError: it did not come up.
    """
    options = ("--archives", str(archives), "--state-dir", str(state), *worker_options(layout, precision))
    log = state.parent / f"serve-{precision}-{layout.workers}x{layout.threads}.log"
    with _gateway((*_FOUNT, "serve", *_PORTS, *GATEWAY_OPTIONS, *options), log) as (process, ports):
        yield _server(ports, roles_below(psutil.Process(process.pid)))


@contextmanager
def fount_before_two(archives: Path, state: Path, precision: Precision) -> Iterator[Server]:
    """Run a gateway in front of two TorchServe processes, each with one worker of one thread, until the block ends.

    Raises:
        StartError: one of them did not come up.
    """
    with ExitStack() as stack:
        options, java = list[str](), list[psutil.Process]()
        for _ in range(2):
            process, address, tokens = stack.enter_context(_torchserve(archives, state, precision))
            options += ["--torchserve", address, "--token-file", str(tokens)]
            java.append(psutil.Process(process.pid))
        command = (*_FOUNT, "gateway", *_PORTS, *GATEWAY_OPTIONS, *options)
        log = state.parent / f"gateway-{precision}.log"
        process, ports = stack.enter_context(_gateway(command, log))
        roles = {"gateway": [psutil.Process(process.pid)], "java": java}
        roles |= {f"worker {k + 1}": workers_of([each]) for k, each in enumerate(java)}
        yield _server(ports, roles)


def _server(ports: tuple[int, int], roles: dict[str, list[psutil.Process]]) -> Server:
    grpc_port, http_port = ports
    return Server(url=f"fount://127.0.0.1:{grpc_port}", metrics=f"http://127.0.0.1:{http_port}/metrics", roles=roles)


@contextmanager
def _gateway(command: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[int, int]]]:
    """Run a command that says its ports; gives the process and the ports of gRPC and HTTP once it is ready."""
    with log.open("w") as output:
        process = _start(command, output.fileno())
    try:
        ports = _wait_for_ports(process, log)
        _wait_until_ready(ports[1])
        yield process, ports
    finally:
        end_group(process)


@contextmanager
def _torchserve(archives: Path, state: Path, precision: Precision) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Run one TorchServe with a state folder of its own; gives HOST:INFERENCE/MANAGEMENT and the file of its tokens."""
    with private_folder() as folder:
        own = folder / "s"
        copytree(state, own, ignore=ignore_patterns(".*"))  # what was measured; others may be writing beside it
        options = worker_options(Layout(workers=1, threads=1), precision)
        command = [sys.executable, "-m", "service.workers.torchserve.run", "--archives", str(archives)]
        command += ["--state", str(own), "--inference-port", "0", "--management-port", "0", *options]
        with (folder / "output").open("w") as output:
            process = _start(command, output.fileno())
        try:
            tokens = own / "torchserve" / "key_file.json"
            address = find_address(process, 1, tokens, folder / "output")
            management = address.management.rpartition(":")[2]
            yield process, f"{address.inference}/{management}", tokens
        finally:
            end_group(process)


def _start(command: Sequence[str], output: int) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
    return subprocess.Popen(
        [*command], env=kept | {"PYTHONUNBUFFERED": "1"}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, start_new_session=True, text=True,
    )  # fmt: skip


def _wait_for_ports(process: subprocess.Popen[str], log: Path) -> tuple[int, int]:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        if found := _SAID.search(log.read_text(errors="replace")):
            return int(found[1]), int(found[2])
        time.sleep(_POLL_S)
    told = log.read_text(errors="replace").splitlines()[-20:]
    raise StartError("the gateway did not come up:\n" + "\n".join(told))


def _wait_until_ready(http_port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{http_port}/readyz", timeout=5):
                return
        except URLError:
            time.sleep(_POLL_S)
    raise StartError(f"the gateway was not ready within {_READY_S:g} s")
