"""`python -m benchmarks.hostile_files`: what data sets made to hurt cost a gateway; prints a Markdown table.

Three data sets, each with a real `fount gateway`: a Parquet file of very many tiny pictures, read with a deadline and
then stopped; gzip IDX files that are refused again and again; an NPZ file of a few megabytes that expands to gigabytes.
The worst delay is that of a health check, asked for every 10 ms, so it is how long the gateway answers nobody.
"""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import click
import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from fount.v1 import dataset_pb2, dataset_pb2_grpc

_PIECE = bytes(1 << 20)
_DRAIN_S = 5
_HEADER = "| case | worst delay | memory before | peak | after | to the answer | to stop |\n" + 7 * "|---" + "|"


@dataclass
class Measured:
    """One case; memory is resident, in MB, and times are in seconds."""

    case: str
    worst_delay_s: float = 0.0
    memory: list[float] = field(default_factory=list)  # before, after each call
    peak: float = 0.0
    answers_s: list[float] = field(default_factory=list)
    stop_s: float = 0.0

    def row(self) -> str:
        """Write the row of the table."""
        answers = ", ".join(f"{each:.2f}" for each in self.answers_s)
        after = ", ".join(f"{each:,.0f}" for each in self.memory[1:])
        memory = f"{self.memory[0]:,.0f} MB | {self.peak:,.0f} MB | {after} MB"
        return f"| {self.case} | {1000 * self.worst_delay_s:,.0f} ms | {memory} | {answers} s | {self.stop_s:.1f} s |"


# --- Data sets --------------------------------------------------------------------------------------------------------


def write_tiny_rows(folder: Path, rows: int) -> Path:
    """One Parquet file of 1×1 pictures."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    file, block = folder / "tiny.parquet", 100_000
    images, labels = pa.array([stream.getvalue()] * block), pa.array([0] * block)
    table = pa.table({"image": images, "label": labels})
    with parquet.ParquetWriter(file, table.schema) as writer:
        for _ in range(rows // block):
            writer.write_table(table)
    return file


def write_refused_idx(folder: Path, megabytes: int) -> Path:
    """Two gzip IDX splits, each within the limit of 4 GiB and both together beyond it."""
    for prefix in ("train", "t10k"):
        for kind, shape in (("images-idx3", (megabytes, 1024, 1024)), ("labels-idx1", (megabytes,))):
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb", 1) as file:
                file.write(bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes())
                for _ in range(megabytes if len(shape) > 1 else 0):
                    file.write(_PIECE)
                if len(shape) == 1:
                    file.write(bytes(megabytes))
    return folder


def write_expanding_npz(folder: Path, megabytes: int) -> Path:
    """A compressed NPZ of black pictures."""
    file = folder / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (megabytes, 1024, 1024)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(megabytes):
                member.write(_PIECE)
        with archive.open("labels.npy", "w") as member:
            np.save(member, np.zeros(megabytes, np.int64))
    return file


# --- A gateway --------------------------------------------------------------------------------------------------------


@contextmanager
def gateway(data: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], grpc.Channel]]:
    """Run `fount gateway` with one data set, called x, without workers."""
    options = ["--port", "0", "--http-port", "0", "--drain", str(_DRAIN_S), "--data-set", f"x={data}"]
    command = [sys.executable, "-m", "fount", "gateway", "--torchserve", "127.0.0.1:1/2", *options]
    log = (folder / "gateway.log").open("w")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        port = re.search(r"gRPC on port (\d+)", (process.stdout and process.stdout.readline()) or "")
        if port is None:
            raise click.ClickException(f"the gateway did not start: {(folder / 'gateway.log').read_text()[-1000:]}")
        with grpc.insecure_channel(f"127.0.0.1:{port[1]}") as channel:
            yield process, channel
    finally:
        process.kill()
        process.wait()
        log.close()


def memory_mb(process: subprocess.Popen[str], name: str = "VmRSS") -> float:
    """Read the resident memory of a process, or with "VmHWM" its peak."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith(name))


def measure(case: str, data: Path, folder: Path, *, calls: int, deadline_s: float) -> Measured:
    """Ask for the data set a few times while checking the gateway's health, and stop the gateway."""
    found, done = Measured(case), threading.Event()
    with gateway(data, folder) as (process, channel):
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), timeout=60)

        def check_health() -> None:
            while not done.wait(0.01):
                start = time.monotonic()
                health.Check(health_pb2.HealthCheckRequest(), timeout=600)
                found.worst_delay_s = max(found.worst_delay_s, time.monotonic() - start)

        checking = threading.Thread(target=check_health)
        checking.start()
        found.memory.append(memory_mb(process))
        for _ in range(calls):
            start = time.monotonic()
            with suppress(grpc.RpcError):  # refused, or too late
                request = dataset_pb2.GetDatasetRequest(name="x")
                dataset_pb2_grpc.DatasetServiceStub(channel).GetDataset(request, timeout=deadline_s)
            found.answers_s.append(time.monotonic() - start)
            found.memory.append(memory_mb(process))
        done.set()
        checking.join()
        found.peak = memory_mb(process, "VmHWM")
        start = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.wait(600)
        found.stop_s = time.monotonic() - start
    return found


@click.command()
@click.option("--rows", default=3_000_000, show_default=True, help="Tiny pictures in the Parquet file.")
@click.option("--megabytes", default=3_200, show_default=True, help="Of the NPZ file; each IDX split has 0.7 of it.")
@click.option("--calls", default=4, show_default=True, help="How often the refused data set is asked for.")
@click.option("--only", default="tiny,refused,expanding", show_default=True, help="Some of the cases.")
def main(rows: int, megabytes: int, calls: int, only: str) -> None:
    """Measure every case."""
    click.echo(_HEADER)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "tiny" in only:
            data = write_tiny_rows(folder, rows)
            click.echo(measure(f"Parquet, {rows:,} rows", data, folder, calls=1, deadline_s=5).row())
        if "refused" in only:
            data = write_refused_idx(folder, 7 * megabytes // 10)
            click.echo(measure("gzip IDX, refused", data, folder, calls=calls, deadline_s=300).row())
        if "expanding" in only:
            data = write_expanding_npz(folder, megabytes)
            click.echo(measure("compressed NPZ", data, folder, calls=1, deadline_s=600).row())


if __name__ == "__main__":
    main()
