"""`fount runner`: one process that runs evaluations, on the machine of a gateway or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import signal
import tempfile
from pathlib import Path

import click

from service.cli.options import data_set_option, data_sets_option, log_level_option
from service.cli.signals import stop_event
from service.datasets import Datasets
from service.datasets.configuration import configured_datasets
from service.errors import SetupError
from service.evaluation.jobs.hosting import PARENT_VARIABLE

__all__ = ["runner", "stop_with_parent"]

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_PARENT_CHECK_S = 1.0


@click.command(epilog="\b\nExample:\n  fount runner --jobs postgresql://fount@db/fount --server gateway:50051 \\\n"
                      "    --data-set mnist=data/mnist")  # fmt: skip
@click.option("--jobs", required=True, metavar="URL", show_envvar=True,
              help="Where evaluations are kept: sqlite:///PATH, or postgresql://USER@HOST/DATABASE, which any number "
                   "of runners share. The gateway's.")  # fmt: skip
@click.option("--server", default="127.0.0.1:50051", show_default=True, metavar="HOST:PORT", show_envvar=True,
              help="The gateway whose workers draw samples and read images.")  # fmt: skip
@data_set_option
@data_sets_option
@click.option("--work-dir", type=click.Path(path_type=Path), metavar="DIR", show_envvar=True,
              help="Folder for the files of running evaluations and for the cache of data sets as models read them. "
                   "Unset: one in the system's folder for temporary files.")  # fmt: skip
@click.option("--work-bytes", type=click.IntRange(min=1), default=4 << 30, show_default=True, show_envvar=True,
              help="Size limit of the cache of data sets.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1, 64), default=1, show_default=True, show_envvar=True,
              help="Evaluations at once in one runner; that of the runner started last applies to all.")  # fmt: skip
@log_level_option
def runner(
    jobs: str,
    server: str,
    data_set: tuple[str, ...],
    data_sets: Path | None,
    work_dir: Path | None,
    work_bytes: int,
    concurrency: int,
) -> None:
    """Run evaluations until Ctrl-C. Another runner, or the next start, continues those that are not finished then."""
    folder = work_dir.expanduser() if work_dir else _own_folder(jobs)
    try:
        datasets = Datasets(configured_datasets(data_set, data_sets))
        asyncio.run(_run(jobs, server, datasets, folder, work_bytes, concurrency))
    except SetupError as error:
        raise click.ClickException(str(error)) from error


def _own_folder(jobs: str) -> Path:
    """Return the folder that the runners of one user with one database share."""
    which = hashlib.sha256(jobs.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"fount-runner-{os.getuid()}-{which}"


async def _run(
    jobs: str, server: str, datasets: Datasets, folder: Path, reference_bytes: int, concurrency: int
) -> None:
    # These take long to import, and no other command needs them.
    from service.evaluation.jobs.database import jobs_url
    from service.evaluation.jobs.runner import Runner
    from service.evaluation.pipeline.pipeline import Pipeline
    from service.rpc.runner_client import RemoteWorkers

    stop = stop_event()
    watching = asyncio.create_task(stop_with_parent(stop))
    workers = RemoteWorkers(server)
    pipeline = Pipeline(workers=workers, datasets=datasets, folder=folder, reference_bytes=reference_bytes)
    running = Runner(jobs_url(jobs), pipeline, concurrency=concurrency)
    try:
        await running.start()
        click.echo(f"Fount runs evaluations as {running.id}; samples are drawn from {server}.")
        await stop.wait()
        click.echo("stopping …", err=True)
    finally:
        watching.cancel()
        await running.stop()
        await workers.close()


async def stop_with_parent(stop: asyncio.Event) -> None:
    """Set `stop` when the gateway that started this process is gone."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    if not parent.isdecimal():
        return
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the loop below notices, a moment later
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
    while os.getppid() == int(parent):
        await asyncio.sleep(_PARENT_CHECK_S)
    stop.set()
