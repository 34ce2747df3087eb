"""`fount pull`: write the rows of a plan into files over parallel streams; an interrupted run can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import click
from tqdm import tqdm

from fount.augmentation.plan_file import load_plan_file, named_classes
from fount.augmentation.pull import PROVENANCE_LEVELS, Level
from fount.augmentation.shards import MAX_SHARDS
from fount.cli.connection import connected
from fount.cli.options import PATH, option, server_options
from fount.cli.output.text import echo_result, error_is_terminal, note_numbers_read_as_names, plain
from fount.errors import FountError
from fount.export.export import Export, ExportOptions, ExportResult, is_plan_file
from fount.export.export_folder import MANIFEST, ExportFolder
from fount.export.formats import FORMATS

__all__ = ["pull"]

_LINE_INTERVAL_S = 10.0


@click.command()
@click.argument("plan", type=PATH)
@click.option("--out", required=True, envvar="FOUNT_PULL_OUT", show_envvar=True, metavar="DIR", type=PATH, help="The folder to write; created if missing.")  # fmt: skip  # noqa: E501
@option("--format", type=click.Choice(list(FORMATS)), default="parquet", help="File format.")
@option("--provenance", type=click.Choice(list(PROVENANCE_LEVELS)), default="ids", help="How much provenance to store with each row.")  # fmt: skip  # noqa: E501
@option("--shards", type=click.IntRange(1, MAX_SHARDS), metavar="N", help="Number of shards; unset, as planned.")
@option("--jobs", type=click.IntRange(1, 64), metavar="N", default="4", help="Number of simultaneous streams.")
@click.option("--out-of-bag", envvar="FOUNT_PULL_OUT_OF_BAG", show_envvar=True, is_flag=True, help="Pull the rows that the bootstrap of a plan with a seed, or of a ticket, did not draw.")  # fmt: skip  # noqa: E501
@server_options
# The options arrive by name, one a parameter.
def pull(
    plan: Path,
    out: Path,
    format: str,
    provenance: str,
    shards: int | None,
    jobs: int,
    out_of_bag: bool,
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Pull the rows of a plan into a folder.

    PLAN is a plan file ending with .yaml, or a ticket that `fount plan --ticket-out` wrote. Run the same command again
    after an interruption: finished files are verified and kept, the rest is pulled. DIR/manifest.json is written last.

    \b
    Example:
      fount plan balanced.yaml
      fount pull balanced.yaml --out balanced/
      fount pull balanced.yaml --out tars/ --format webdataset --shards 8
    """  # noqa: D301  # \b is click's: keep the lines as they are
    options = ExportOptions(
        format=FORMATS[format],
        provenance=cast(Level, provenance),
        part="out-of-bag" if out_of_bag else "plan",
        shards=shards,
        jobs=jobs,
    )
    options.format.check_installed()
    spec = load_plan_file(plan) if is_plan_file(plan) else None  # reports what is wrong before anything is created
    folder = ExportFolder(out)
    rates: list[float] = []  # of the rows pulled; the time for joining and describing them does not count

    @contextmanager
    def show_progress(total: int, done: int) -> Iterator[Callable[[int], None]]:
        progress = _RowsProgress(total, done, quiet=as_json)
        with progress.bar:
            yield progress.add
        rates.append(progress.rows_per_s)

    with folder.locked(), connected(server, timeout_s) as client:
        export = Export(client, folder, plan, options)
        if spec is not None:
            note_numbers_read_as_names(named_classes(spec), export.classes)
        try:
            result = export.run(show_progress)
        except FountError as error:
            raise FountError(f"{error}\nFinished files remain: run the same command again to resume.") from error
    value = {**result.manifest, "out": str(out), "made": result.written, "made_again": result.replaced}
    echo_result(value, map(plain, _summary(result, out, *rates)), as_json=as_json)


def _summary(result: ExportResult, out: Path, rows_per_s: float | None = None) -> Iterator[str]:
    manifest = result.manifest
    if not result.written:
        files = _files(len(manifest["parts"]))
        yield f"Already complete: {manifest['written']:,} rows in {files}, all digests verified"
    else:
        rate = "" if rows_per_s is None else f", {rows_per_s:,.0f} per second"
        yield f"{manifest['written']:,} rows of plan {manifest['plan_id']}{rate}"
    if result.replaced:
        yield f"Replaced    {_files(result.replaced)} that had been changed or truncated"
    if manifest["rejected"]:
        yield f"Rejected    {manifest['rejected']:,} rows for which no sample was accepted; they are omitted"
    yield f"Classes     {_counted(manifest['by_class'])}"
    if manifest["by_source"]:
        yield f"Sources     {_counted(manifest['by_source'])}"
    yield f"Written     {out}, {out / MANIFEST}"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"


class _RowsProgress:
    """Counts rows from any thread; shows a bar on a terminal, and otherwise a line at intervals."""

    def __init__(self, total: int, done: int, *, quiet: bool) -> None:
        self._total, self._start, self._done = total, done, done
        self._lock, self._start_s = Lock(), time.monotonic()
        self._line_s = self._start_s
        show_bar = error_is_terminal() and not quiet
        self._show_lines = not show_bar and not quiet
        self.bar: tqdm[Any] = tqdm(total=total, initial=done, unit=" rows", unit_scale=True, disable=not show_bar)

    @property
    def rows_per_s(self) -> float:
        """Rows per second since the start."""
        return (self._done - self._start) / max(time.monotonic() - self._start_s, 1e-9)

    def add(self, rows: int) -> None:
        """Count rows that arrived."""
        with self._lock:
            self._done += rows
            self.bar.update(rows)
            if self._show_lines and time.monotonic() - self._line_s >= _LINE_INTERVAL_S:
                self._line_s, rate = time.monotonic(), self.rows_per_s
                remaining_s = (self._total - self._done) / max(rate, 1e-9)
                rows_done = f"{self._done:,} of {self._total:,} rows"
                click.echo(f"{rows_done}, {rate:,.0f} per second, {remaining_s:,.0f} s remaining", err=True)
