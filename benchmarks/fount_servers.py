"""Fount as an operator starts it, as child processes: `fount serve`, and a gateway with two TorchServe processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from benchmarks.child import ROOT
from benchmarks.plan import GATEWAY_OPTIONS, MODEL, Layout, Precision, worker_options
from benchmarks.processes import Server, StartError, end_group, roles_below, workers_of
from benchmarks.torchserve_alone import find_address, private_folder

__all__ = ["Gateway", "fount_serve", "gateway_with_two_torchserves", "run_fount", "serve"]

_ANY_PORTS = ("--port", "0", "--http-port", "0")
_REQUIRED = (*_ANY_PORTS, "--require", MODEL, *GATEWAY_OPTIONS)
_PORTS = re.compile(r"gRPC on port (\d+); .* on port (\d+)")
_START_S, _POLL_S = 300.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running `fount serve` or `fount gateway`.

    Attributes:
        process: its process, the leader of a session of its own.
        port: of gRPC, on loopback.
        http_port: of metrics and health.
        log: file with its output.
    """

    process: subprocess.Popen[str]
    port: int
    http_port: int
    log: Path


@contextmanager
def run_fount(arguments: Sequence[str], log: Path) -> Iterator[Gateway]:
    """Run a `fount` command that prints its ports until the block ends.

    Raises:
        StartError: it did not print them.
    """
    process = _start((sys.executable, "-m", "fount", *arguments), log)
    try:
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            if found := _PORTS.search(log.read_text(errors="replace")):
                yield Gateway(process=process, port=int(found[1]), http_port=int(found[2]), log=log)
                return
            time.sleep(_POLL_S)
        last = log.read_text(errors="replace").splitlines()[-20:]
        raise StartError(f"fount {arguments[0]} did not start:\n" + "\n".join(last))
    finally:
        end_group(process)


@contextmanager
def serve(store: Path, datasets: Mapping[str, Path], work: Path, *options: str) -> Iterator[str]:
    """Serve a model store and data sets until the block ends; yields HOST:PORT.

    Raises:
        StartError: it did not start.
    """
    arguments = ["serve", "--model-store", str(store), *_ANY_PORTS, "--state-dir", str(work / "state"), *options]
    for name, folder in datasets.items():
        arguments += ["--data-set", f"{name}={folder}"]
    with run_fount(arguments, work / "serve.log") as gateway:
        yield f"127.0.0.1:{gateway.port}"


@contextmanager
def fount_serve(archives: Path, state: Path, layout: Layout, precision: Precision) -> Iterator[Server]:
    """Run `fount serve` with the measured model until the block ends.

    Raises:
        StartError: it did not become ready.
    """
    options = ("--archives", str(archives), "--state-dir", str(state), *worker_options(layout, precision))
    log = state.parent / f"serve-{precision}-{layout.workers}x{layout.threads}.log"
    with run_fount(("serve", *_REQUIRED, *options), log) as gateway:
        _wait_until_ready(gateway)
        yield _server(gateway, roles_below(psutil.Process(gateway.process.pid)))


@contextmanager
def gateway_with_two_torchserves(archives: Path, state: Path, precision: Precision) -> Iterator[Server]:
    """Run a gateway and two TorchServe processes, each with one worker of one thread, until the block ends.

    Raises:
        StartError: one of them did not start.
    """
    with ExitStack() as stack:
        options, java = list[str](), list[psutil.Process]()
        for _ in range(2):
            process, address, tokens = stack.enter_context(_torchserve(archives, state, precision))
            options += ["--torchserve", address, "--token-file", str(tokens)]
            java.append(psutil.Process(process.pid))
        log = state.parent / f"gateway-{precision}.log"
        gateway = stack.enter_context(run_fount(("gateway", *_REQUIRED, *options), log))
        _wait_until_ready(gateway)
        roles = {"gateway": [psutil.Process(gateway.process.pid)], "java": java}
        roles |= {f"worker {k + 1}": workers_of([each]) for k, each in enumerate(java)}
        yield _server(gateway, roles)


def _server(gateway: Gateway, roles: dict[str, list[psutil.Process]]) -> Server:
    metrics = f"http://127.0.0.1:{gateway.http_port}/metrics"
    return Server(url=f"fount://127.0.0.1:{gateway.port}", metrics=metrics, roles=roles)


@contextmanager
def _torchserve(archives: Path, state: Path, precision: Precision) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Run one TorchServe with its own state folder; yields HOST:INFERENCE/MANAGEMENT and its token file."""
    with private_folder() as folder:
        own = folder / "s"
        copytree(state, own, ignore=ignore_patterns(".*"))  # measured profiles; not files that others are writing
        options = worker_options(Layout(workers=1, threads=1), precision)
        command = [sys.executable, "-P", "-m", "service.workers.torchserve.run", "--archives", str(archives)]
        command += ["--state", str(own), "--inference-port", "0", "--management-port", "0", *options]
        process = _start(command, folder / "output")
        try:
            tokens = own / "torchserve" / "key_file.json"
            address = find_address(process, 1, tokens, folder / "output")
            management = address.management.rpartition(":")[2]
            yield process, f"{address.inference}/{management}", tokens
        finally:
            end_group(process)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
    with log.open("w") as output:
        return subprocess.Popen(
            [*command], env=kept | {"PYTHONUNBUFFERED": "1"}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, text=True,
        )  # fmt: skip


def _wait_until_ready(gateway: Gateway) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{gateway.http_port}/readyz", timeout=5):
                return
        except URLError:
            time.sleep(_POLL_S)
    raise StartError(f"the gateway was not ready within {_START_S:g} s")
