"""The soak: Fount at full load while what it is made of is killed at random. Run it with `python -m benchmarks.soak`.

Every byte received is compared with what the same addresses gave before the first fault. It fails, with exit status 1,
when a byte is wrong, a call hangs, a request never becomes whole, a status is one the fault does not explain, memory
grows, or the stack does not come back.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.soak_clients import SoakClient, Truth, read_truths
from benchmarks.soak_faults import Faults
from benchmarks.soak_report import Report, progress_line
from benchmarks.soak_stack import SoakError, Stack, running_stack
from benchmarks.soak_tally import Tally

__all__ = ["soak"]

MODELS = ("mnist-cgan", "digits-cgan")
WORKERS = 2
_TRUTH = 20_000
_PROGRESS_S = 10.0
_LAST_REQUESTS_S = 200.0  # longer than any request may take, with all its attempts


@click.command(epilog="Example: python -m benchmarks.soak --minutes 1 --seed 7")
@click.option("--minutes", type=click.FloatRange(min=0.2), default=10.0, show_default=True, help="How long.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of faults and clients.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/soak.json"), show_default=True,
              help="Where the report goes, as JSON; as Markdown beside it.")  # fmt: skip
def soak(minutes: float, seed: int, out: Path) -> None:
    """Serve two models under full load and random faults, and compare every byte."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            with running_stack(MODELS, WORKERS, Path(folder)) as stack:
                report = asyncio.run(_soak(stack, minutes, seed))
                status, left = stack.stop()
        except SoakError as error:
            sys.exit(f"error: {error}")
    if status or left:
        report.tally.violate(f"it was told to end, and ended with {status}, leaving the processes {left}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    out.with_suffix(".md").write_text(report.to_markdown())
    click.echo(report.to_markdown())
    if report.faults:
        click.echo("the end of what the gateway printed:\n" + "".join(stack.lines[-100:]), err=True)
    sys.exit(1 if report.faults else 0)


async def _soak(stack: Stack, minutes: float, seed: int) -> Report:
    truths = await read_truths(stack.server, list(MODELS), _TRUTH)
    tally, stop_load, stop_faults = Tally(), asyncio.Event(), asyncio.Event()
    faults = Faults(stack=stack, tally=tally, chance=random.Random(seed))  # noqa: S311  # to be had again
    watch = asyncio.create_task(_watch(stack, tally))
    making = asyncio.create_task(faults.run(stop_faults))
    clients = [asyncio.create_task(client.run(stop_load)) for client in make_clients(stack, truths, tally, seed)]
    begun = time.monotonic()
    done, _ = await asyncio.wait([*clients, making], timeout=60 * minutes, return_when=asyncio.FIRST_EXCEPTION)
    stop_faults.set()
    load_s, load_samples = time.monotonic() - begun, tally.samples
    await making
    stop_load.set()
    _, open_ = await asyncio.wait(clients, timeout=_LAST_REQUESTS_S)
    for each in open_:
        tally.hang("a client did not come to its end")
        each.cancel()
    watch.cancel()
    for each in done:  # an error of the soak's own
        each.result()
    return Report(tally=tally, minutes=minutes, seed=seed, models=MODELS, workers=WORKERS, load_s=load_s,
                  load_samples=load_samples)  # fmt: skip


def make_clients(stack: Stack, truths: list[Truth], tally: Tally, seed: int) -> list[SoakClient]:
    """Make every kind of client for every model: together more than the workers can do."""
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
        SoakClient(server=stack.server, truth=truth, tally=tally, chance=random.Random(f"{seed} {k} {n}"), **kind)  # noqa: S311
        for k, truth in enumerate(truths)
        for n, kind in enumerate(kinds)
    ]


async def _watch(stack: Stack, tally: Tally) -> None:
    """Read the gateway's memory every second, and tell how it goes every ten."""
    told = time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        if stack.process.poll() is not None:
            tally.violate(f"the gateway itself ended, with status {stack.process.returncode}")
            return
        tally.memory.append((tally.elapsed_s, stack.rss_mib()))
        if time.monotonic() - told >= _PROGRESS_S:
            told = time.monotonic()
            ready = await asyncio.to_thread(stack.ready_workers)
            click.echo(progress_line(tally, f"{ready}/{stack.workers_wanted}"), err=True)


if __name__ == "__main__":
    soak()
