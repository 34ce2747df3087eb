"""A hundred models loaded on demand: `python -m benchmarks.cold`.

Copies of one small model, under names of their own, are packed and served with `--load on-demand --max-loaded N`.
Measured are the start with few and with many archives, the first answer of a model that is not loaded, and clients that
use more models than may be loaded, so that models are evicted under load. Clients do not repeat requests, so every
failure counts; every answer must be the same bytes, since all models have the same weights.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import click
import psutil

from benchmarks.child import ROOT
from benchmarks.fount_servers import Gateway, run_fount
from benchmarks.loads import percentile
from benchmarks.machine import machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.rows import Bound, Row
from fount import Client
from fount.errors import FountError
from fount.retry import RetryPolicy

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "cold.json"
_KEPT = ROOT / "build" / "bench-cold"
_MODEL = "digits-cgan"
_SEED, _LABEL = 1, 3
_FEW = 2  # archives of the start that the start with all is compared with
_START_S, _POLL_S = 300.0, 0.05
_WARM_REQUESTS = 50
_NO_RETRY = RetryPolicy(first_attempts=1, attempts=1)


@click.command()
@click.option("--models", "count", type=click.IntRange(min=4), default=100, show_default=True)
@click.option("--max-loaded", type=click.IntRange(min=1), default=4, show_default=True, help="Models loaded at once.")
@click.option("--cold", type=click.IntRange(min=1), default=10, show_default=True, help="First answers to measure.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="Of load.")
@click.option("--clients", type=click.IntRange(min=1), default=4, show_default=True, help="Threads with requests.")
@click.option("--out", type=click.Path(path_type=Path), default=_OUT, help="JSON file, with the table next to it.")
def main(count: int, max_loaded: int, cold: int, seconds: float, clients: int, out: Path) -> None:
    """Measure the start, first answers and eviction of models that are loaded on demand."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [f"{_MODEL}-{number:03}" for number in range(count)]
    log(f"packing {count} archives")
    archives = _pack(names)
    rows = [_start_row(archives, names, max_loaded)]
    log(f"serving {count} archives, {max_loaded} models loaded at most")
    with _serve(archives, max_loaded) as (gateway, _), _client(gateway) as client:
        log("first answers")
        rows.append(_first_row(client, names[:cold]))
        log(f"{clients} clients on {3 * max_loaded} models for {seconds:g} s")
        load = _load(gateway, names[-3 * max_loaded :], seconds, clients)
        rows += _load_rows(load, max_loaded)
        memory = _resident_bytes(gateway)
    rows.append(
        Row(
            workload=f"resident memory with {count} models", precision="fp32",
            value=f"{memory / 2**20:.0f} MiB of all processes", reference=f"{max_loaded} loaded at most",
        )
    )  # fmt: skip
    facts = machine_facts()
    notes = [f"{count} archives of {_MODEL} under names of their own, `fount serve --load on-demand --max-loaded "
             f"{max_loaded}`; clients do not repeat requests."]  # fmt: skip
    seen = asdict(load) | {"digests": sorted(load.digests)}
    document = {"machine": facts, "rows": [asdict(row) for row in rows], "load": seen}
    write_results(out, document, rows_to_markdown(rows, facts, notes))


def _pack(names: Sequence[str]) -> Path:
    """Pack a copy of the model for each name; those of an earlier run are kept if the first is packed the same."""
    from handlers.cards.card import load_card, write_card  # here, because torch takes seconds to import
    from handlers.packaging.pack import pack

    archives, packed = _KEPT / "archives", _KEPT / "packed"
    for name in names:
        folder = _KEPT / "store" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "model_store" / _MODEL, folder)
        write_card(replace(load_card(folder), name=name), folder)
        digest = pack(folder, archives).archive_digest
        if name == names[0]:
            wanted = f"{digest} {len(names)}"
            if packed.is_file() and packed.read_text() == wanted:
                break
            shutil.rmtree(archives)
            pack(folder, archives)
    packed.write_text(wanted)
    return archives


@contextmanager
def _serve(archives: Path, max_loaded: int) -> Iterator[tuple[Gateway, float]]:
    """Serve archives on demand until the block ends; yields the gateway and the seconds until it was ready."""
    arguments = ("serve", "--archives", str(archives), "--port", "0", "--http-port", "0", "--state-dir",
                 str(_KEPT / "state"), "--load", "on-demand", "--max-loaded", str(max_loaded))  # fmt: skip
    begin = time.monotonic()
    with run_fount(arguments, _KEPT / "serve.log") as gateway:
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{gateway.http_port}/readyz", timeout=5):
                    break
            except URLError:
                if time.monotonic() > begin + _START_S:
                    raise
                time.sleep(_POLL_S)
        yield gateway, time.monotonic() - begin


def _client(gateway: Gateway) -> Client:
    return Client(f"127.0.0.1:{gateway.port}", timeout_s=120.0, retry=_NO_RETRY)


def _sample(client: Client, name: str) -> tuple[float, str]:
    """Draw one sample; returns seconds, and the digest of its bytes."""
    start = time.monotonic()
    image = client.sample(name, seed=_SEED, label=_LABEL).tobytes()
    return time.monotonic() - start, hashlib.sha256(image).hexdigest()


def _start_row(archives: Path, names: Sequence[str], max_loaded: int) -> Row:
    few = _KEPT / "few"
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for name in names[:_FEW]:
        shutil.copy(archives / f"{name}-1.0.mar", few)
    seconds = {}
    for count, folder in ((_FEW, few), (len(names), archives)):
        log(f"start with {count} archives")
        with _serve(folder, max_loaded) as (_, ready_s):
            seconds[count] = ready_s
    return Row(
        workload=f"start with {len(names)} models", precision="fp32", value=f"ready in {seconds[len(names)]:.1f} s",
        reference=f"{_FEW} models in {seconds[_FEW]:.1f} s", ratio=seconds[len(names)] / seconds[_FEW],
    )  # fmt: skip


def _first_row(client: Client, names: Sequence[str]) -> Row:
    cold = [_sample(client, name)[0] for name in names]
    warm = [_sample(client, names[-1])[0] for _ in range(_WARM_REQUESTS)]
    return Row(
        workload=f"first answer of a model that is not loaded (n = {len(cold)})", precision="fp32",
        value=f"median {statistics.median(cold):.2f} s, at most {max(cold):.2f} s",
        reference=f"loaded: p50 {1000 * percentile(warm, 50):.1f} ms",
    )  # fmt: skip


@dataclass(kw_only=True)
class _Load:
    """What clients observed: seconds and digest of each answer, and each failure."""

    seconds: list[float] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def __add__(self, other: Any) -> _Load:
        return _Load(seconds=self.seconds + other.seconds, digests=self.digests | other.digests,
                     failures=self.failures + other.failures)  # fmt: skip


def _load(gateway: Gateway, names: Sequence[str], seconds: float, clients: int) -> _Load:
    end = time.monotonic() + seconds

    def run(number: int) -> _Load:
        seen, chosen = _Load(), random.Random(number)  # noqa: S311 - which model is used next
        with _client(gateway) as client:
            while time.monotonic() < end:
                # Mostly the first names, so that some models stay in use while others come and go.
                name = names[min(int(chosen.expovariate(3.0 / len(names))), len(names) - 1)]
                try:
                    took, digest = _sample(client, name)
                except FountError as error:
                    seen.failures.append(f"{name}: {error}")
                    continue
                seen.seconds.append(took)
                seen.digests.add(digest)
        return seen

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(run, range(clients)), _Load())


def _load_rows(load: _Load, max_loaded: int) -> Iterator[Row]:
    answers, failed = len(load.seconds), len(load.failures)
    for text in load.failures[:5]:
        log(f"failed: {text}")
    yield Row(
        workload=f"requests to {3 * max_loaded} models in turn, {max_loaded} loaded at most", precision="fp32",
        value=f"{failed} failed of {answers + failed}", reference="none may", ratio=float(failed),
        bound=Bound(must=0, at_most=True),
    )  # fmt: skip
    yield Row(
        workload="… answers with other bytes than the first", precision="fp32",
        value=f"{max(0, len(load.digests) - 1)} other digests", reference="none may",
        ratio=float(len(load.digests) - 1), bound=Bound(must=0, at_most=True),
    )  # fmt: skip
    yield Row(
        workload="… seconds of a request", precision="fp32",
        value=f"p50 {percentile(load.seconds, 50):.3f} s, p99 {percentile(load.seconds, 99):.2f} s",
        reference=f"at most {max(load.seconds, default=float('nan')):.2f} s",
    )  # fmt: skip


def _resident_bytes(gateway: Gateway) -> int:
    top = psutil.Process(gateway.process.pid)
    return sum(int(each.memory_info().rss) for each in (top, *top.children(recursive=True)))


if __name__ == "__main__":
    main()
