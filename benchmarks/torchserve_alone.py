"""TorchServe without Fount: the same Java, flags and environment as in Fount, but its own batching and handler."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import mkdtemp

import grpc
import psutil

from benchmarks.plan import MODEL, Layout, Precision
from benchmarks.processes import Server, StartError, end_group, workers_of
from service.workers.torchserve.channel import Address, TorchServeChannel
from service.workers.torchserve.launch import Launch, TorchServeConfig, prepare

__all__ = ["find_address", "private_folder", "torchserve_alone", "worker_environment"]

_START_S = 180.0
_POLL_S = 0.2
_OWN_OF_PROCESS = ("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION")
BATCH_REQUESTS, BATCH_DELAY_MS = 16, 1


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a temporary folder with a path short enough for sockets."""
    folder = Path(mkdtemp(prefix="fount-bench-"))
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def worker_environment(archives: Path, state: Path, layout: Layout, precision: Precision) -> dict[str, str]:
    """Compute the environment of Fount's own workers, for the limit."""
    with private_folder() as folder:
        environment = _prepare(archives, state, layout, precision, folder).environment
    return {key: value for key, value in environment.items() if key not in _OWN_OF_PROCESS}


@contextmanager
def torchserve_alone(
    archives: Path, alone: Path, state: Path, layout: Layout, precision: Precision
) -> Iterator[Server]:
    """Run TorchServe with a plain handler until the block ends.

    Args:
        archives: of Fount; TorchServe is prepared with them as for Fount, before its archive is replaced.
        alone: the folder of `<MODEL>.mar` with the plain handler.
        state: folder of measured profiles.
        layout: workers × threads.
        precision: of the workers.

    Raises:
        StartError: it did not start.
    """
    with private_folder() as folder:
        launch = _prepare(archives, state, layout, precision, folder)
        copyfile(alone / f"{MODEL}.mar", folder / "store" / f"{MODEL}.mar")
        _register_alone(folder / "config.properties", layout)
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                launch.command, env=launch.environment, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, text=True,
            )  # fmt: skip
        try:
            address = find_address(process, layout.workers, None, folder / "output")
            java = psutil.Process(process.pid)
            roles = {"java": [java], "worker": workers_of([java])}
            yield Server(url=f"torchserve://{address.inference}", roles=roles)
        finally:
            end_group(process)


def _prepare(archives: Path, state: Path, layout: Layout, precision: Precision, folder: Path) -> Launch:
    config = TorchServeConfig(
        archives=archives, state=state, workers=layout.workers, threads=layout.threads, precision=precision, token=False
    )  # fmt: skip
    return prepare(config, folder)


def _register_alone(properties: Path, layout: Layout) -> None:
    """Replace the model and its batching in TorchServe's settings; all others remain Fount's."""
    model = {
        "marName": f"{MODEL}.mar", "minWorkers": layout.workers, "maxWorkers": layout.workers,
        "batchSize": BATCH_REQUESTS, "maxBatchDelay": BATCH_DELAY_MS, "responseTimeout": 120,
    }  # fmt: skip
    ours: Mapping[str, str] = {
        "load_models": f"{MODEL}.mar",
        "models": json.dumps({MODEL: {"1.0": model}}),
        "job_queue_size": "100",  # TorchServe's default: there is no gateway that queues requests
    }
    kept = [line for line in properties.read_text().splitlines() if line.partition("=")[0] not in ours]
    properties.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in ours.items())]) + "\n")


def find_address(process: subprocess.Popen[str], workers: int, token_file: Path | None, output: Path) -> Address:
    """Wait until a TorchServe listens and has loaded the model in every worker.

    Raises:
        StartError: it exited, or was not ready within three minutes.
    """
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        if (address := asyncio.run(_probe(process.pid, workers, token_file))) is not None:
            return address
        time.sleep(_POLL_S)
    last = output.read_text(errors="replace").splitlines()[-20:]
    raise StartError("TorchServe did not start:\n" + "\n".join(last))


async def _probe(pid: int, workers: int, token_file: Path | None) -> Address | None:
    """Request the model's description from both listening ports, to find which is management."""
    sockets = psutil.Process(pid).net_connections("tcp")
    ports = [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]
    for inference, management in (ports, ports[::-1]) if len(ports) == 2 else ():
        address = Address(
            inference=f"127.0.0.1:{inference}", management=f"127.0.0.1:{management}", token_file=token_file
        )  # fmt: skip
        channel = TorchServeChannel(address)
        with suppress(grpc.aio.AioRpcError, KeyError, ValueError):
            try:
                if all(len(pids) == workers for pids in (await channel.ready_pids(MODEL)).values()):
                    return address
            finally:
                await channel.close()
    return None
