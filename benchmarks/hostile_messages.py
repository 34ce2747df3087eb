"""`python -m benchmarks.hostile_messages`: what over-long and malformed requests cost a gateway, as a Markdown table.

A gateway in a process of its own, over workers in memory, gets messages of 4 MiB that are valid on the wire and hold
millions of empty entries, and bodies that are no messages. The worst delay is that of a health check, asked for every
10 ms on another connection, so it is how long the gateway answers nobody.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import click
import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.config import GatewayConfig
from service.gateway import Gateway
from service.workers.memory import MemoryPool

_BYTES = (4 << 20) - 1024
_MALFORMED = 1000
_HEADER = "| request | answer | to the answer | worst delay | memory, peak − before | log |\n" + 6 * "|---" + "|"


def _field(number: int, data: bytes) -> bytes:
    """Write a field of bytes, as protobuf does."""
    size, length = bytearray(), len(data)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + data


_EMPTY = b"\x0a\x00" * (_BYTES // 2)  # entries of field 1
_TRANSFORMS = _field(1, b"digits") + _field(7, _EMPTY)
_CONFIG = _field(1, b"\x08\x08\x10\x08\x18\x01" + _field(4, _EMPTY))
_MIXTURE = _field(1, _field(1, b"toy")) + b"\x10\x01" + _field(5, _field(3, _EMPTY))
_CASES = {
    "PlanDataset, 2 000 000 transforms": ("AugmentationService/PlanDataset", _TRANSFORMS, 1),
    "the same, three at once": ("AugmentationService/PlanDataset", _TRANSFORMS, 3),
    "Augment, 2 000 000 transforms": ("AugmentationService/Augment", _CONFIG, 1),
    "CreateEvaluation, 4 000 000 panels": ("EvaluationService/CreateEvaluation", _field(6, b"\x01" * _BYTES), 1),
    "ListEvaluations, 4 000 000 states": ("EvaluationService/ListEvaluations", _field(3, b"\x63" * _BYTES), 1),
    "SampleOnce, 2 000 000 components": ("SamplingService/SampleOnce", _field(1, _MIXTURE), 1),
    "GetModel, a name of 4 MiB": ("ModelService/GetModel", _field(1, _field(1, b"a" * _BYTES)), 1),
    f"{_MALFORMED} malformed bodies": ("ModelService/GetModel", b"\xff\xff", _MALFORMED),
}


@dataclass
class Measured:
    """One case; memory in bytes."""

    codes: set[str] = field(default_factory=set)
    seconds: float = 0.0
    worst_delay_s: float = 0.0
    before: int = 0
    peak: int = 0


def _serve(connection: Connection, folder: Path) -> None:
    """Run a gateway until its process is ended."""
    logging.basicConfig(filename=folder / "log", level="WARNING")

    async def run() -> None:
        config = GatewayConfig(port=0, http_port=0, jobs=f"sqlite:///{folder}/evaluations.db")
        gateway = Gateway(MemoryPool(), config)
        await gateway.start()
        await gateway.wait_ready(10)
        connection.send(gateway.port)
        await asyncio.Event().wait()

    asyncio.run(run())


def _send(channel: grpc.Channel, path: str, body: bytes) -> str:
    path = f"/fount.v1.{path}"
    try:
        if path.endswith("Augment"):
            list(channel.stream_stream(path)(iter([body]), timeout=600))
        else:
            channel.unary_unary(path)(body, timeout=600)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _watch(address: str, process: psutil.Process, measured: Measured, stop: threading.Event) -> None:
    """Check the health and the memory again and again."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not stop.is_set():
            start_s = time.monotonic()
            check = stub.Check.future(health_pb2.HealthCheckRequest(), timeout=600)
            while not check.done():
                measured.peak = max(measured.peak, process.memory_info().rss)
                time.sleep(0.002)
            measured.worst_delay_s = max(measured.worst_delay_s, time.monotonic() - start_s)
            measured.peak = max(measured.peak, process.memory_info().rss)
            time.sleep(0.01)


def _measure(path: str, body: bytes, count: int, folder: Path) -> tuple[Measured, int]:
    """Send messages to a new gateway; returns what was measured, and the bytes of its log."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, folder), daemon=True)
    child.start()
    address, process = f"127.0.0.1:{ours.recv()}", psutil.Process(child.pid)
    measured, stop = Measured(before=process.memory_info().rss), threading.Event()
    watcher = threading.Thread(target=_watch, args=(address, process, measured, stop))
    watcher.start()
    time.sleep(0.5)
    measured.worst_delay_s = 0.0
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(min(count, 8)) as threads:
        start_s = time.monotonic()
        measured.codes = set(threads.map(lambda _: _send(channel, path, body), range(count)))
        measured.seconds = time.monotonic() - start_s
    stop.set()
    watcher.join()
    child.kill()
    child.join()
    return measured, (folder / "log").stat().st_size


@click.command()
def main() -> None:
    """Measure every case, and print the table."""
    click.echo(_HEADER)
    for name, (path, body, count) in _CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            measured, log_bytes = _measure(path, body, count, Path(folder))
        memory = f"{(measured.peak - measured.before) / 1e6:,.0f} MB"
        delay = f"{measured.worst_delay_s * 1e3:,.0f} ms"
        answers = ", ".join(sorted(measured.codes))
        click.echo(
            f"| {name} | {answers} | {measured.seconds:.2f} s | {delay} | {memory} | {log_bytes / 1e3:,.0f} kB |"
        )


if __name__ == "__main__":
    main()
