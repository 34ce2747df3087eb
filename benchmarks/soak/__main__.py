"""`python -m benchmarks.soak`: Fount under full load while its processes are killed at random.

Every received byte is compared with the bytes of the same addresses before the first fault. The soak fails, with exit
status 1, when a byte is wrong, a call hangs, a request is never completed, a status is not explained by a fault, memory
grows, or the stack does not recover.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.output import write_results
from benchmarks.processes import StartError
from benchmarks.soak.clients import Reference, SoakClient, draw_reference
from benchmarks.soak.faults import Faults
from benchmarks.soak.report import Report, Tally, progress_line
from benchmarks.soak.stack import Stack, running_stack

__all__ = ["soak"]

_MODELS = ("mnist-cgan", "digits-cgan")
_WORKERS = 2
_REFERENCE = 20_000  # samples
_PROGRESS_S = 10.0
_LAST_REQUESTS_S = 200.0  # longer than any request with all its attempts


@click.command(epilog="Example: python -m benchmarks.soak --minutes 1 --seed 7")
@click.option("--minutes", type=click.FloatRange(min=0.2), default=10.0, show_default=True, help="Duration.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of faults and clients.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/soak.json"), show_default=True,
              help="File of the report as JSON; the Markdown is written next to it.")  # fmt: skip
def soak(minutes: float, seed: int, out: Path) -> None:
    """Serve two models under full load and random faults, and compare every byte."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            with running_stack(_MODELS, _WORKERS, Path(folder)) as stack:
                report = asyncio.run(_soak(stack, minutes, seed))
                status, remaining = stack.stop()
                printed = stack.gateway.log.read_text(errors="replace").splitlines()[-100:]
        except StartError as error:
            sys.exit(f"error: {error}")
    if status or remaining:
        report.tally.violate(f"after SIGTERM it exited with {status}, leaving the processes {remaining}")
    write_results(out, report.to_json(), report.to_markdown())
    if report.faults:
        click.echo("the last output of the gateway:\n" + "\n".join(printed), err=True)
    sys.exit(1 if report.faults else 0)


async def _soak(stack: Stack, minutes: float, seed: int) -> Report:
    references = [await draw_reference(stack.server, model, _REFERENCE) for model in _MODELS]
    tally, stop_load, stop_faults = Tally(), asyncio.Event(), asyncio.Event()
    faults = Faults(stack=stack, tally=tally, rng=_rng(seed))
    watch = asyncio.create_task(_watch(stack, tally))
    injection = asyncio.create_task(faults.run(stop_faults))
    clients = [asyncio.create_task(client.run(stop_load)) for client in _clients(stack, references, tally, seed)]
    start = time.monotonic()
    done, _ = await asyncio.wait([*clients, injection], timeout=60 * minutes, return_when=asyncio.FIRST_EXCEPTION)
    stop_faults.set()
    load_s, load_samples = time.monotonic() - start, tally.samples
    await injection
    stop_load.set()
    _, unfinished = await asyncio.wait(clients, timeout=_LAST_REQUESTS_S)
    for each in unfinished:
        tally.hang("a client did not finish")
        each.cancel()
    watch.cancel()
    for each in done:  # raises an error of the soak itself
        each.result()
    return Report(tally=tally, minutes=minutes, seed=seed, models=_MODELS, workers=_WORKERS, load_s=load_s,
                  load_samples=load_samples)  # fmt: skip


def _clients(stack: Stack, references: list[Reference], tally: Tally, seed: int) -> list[SoakClient]:
    """Create clients of every kind for every model; together they overload the workers."""
    kinds = [
        {"kind": "bulk", "counts": (2000, 8000)},
        {"kind": "bulk", "counts": (2000, 8000)},
        {"kind": "medium", "counts": (64, 512)},
        {"kind": "single", "counts": (1, 1), "pause_s": 0.02},
        {"kind": "single", "counts": (1, 1), "pause_s": 0.02},
        {"kind": "interactive", "counts": (8, 8), "pause_s": 0.1, "interactive": True},
        {"kind": "vanishing", "counts": (1, 12_000), "pause_s": 0.2, "vanishes_s": 0.4},
    ]
    return [
        SoakClient(server=stack.server, reference=reference, tally=tally, rng=_rng(f"{seed} {k} {n}"), **kind)
        for k, reference in enumerate(references)
        for n, kind in enumerate(kinds)
    ]


def _rng(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311  # repeatable, not secret


async def _watch(stack: Stack, tally: Tally) -> None:
    """Record the gateway's memory every second, and print the progress every ten."""
    printed = time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        if stack.process.poll() is not None:
            tally.violate(f"the gateway exited with status {stack.process.returncode}")
            return
        tally.memory.append((tally.elapsed_s, stack.rss_mib()))
        if time.monotonic() - printed >= _PROGRESS_S:
            printed = time.monotonic()
            ready = await asyncio.to_thread(stack.ready_workers)
            click.echo(progress_line(tally, f"{ready}/{stack.expected_workers}"), err=True)


if __name__ == "__main__":
    soak()
