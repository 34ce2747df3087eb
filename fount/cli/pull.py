"""`fount pull`: the rows of a plan into files, in parallel; what was interrupted goes on where it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import click
from tqdm import tqdm

from fount.augmentation.plan_file import load_plan_file
from fount.augmentation.pull import Level
from fount.augmentation.shards import MAX_SHARDS
from fount.cli.connection import connected
from fount.cli.options import echo_json, json_option, option, plain, server_option, timeout_option
from fount.errors import FountError
from fount.export.export import Export, Outcome, Wanted
from fount.export.formats import FORMATS
from fount.export.plan_choice import choose, is_plan_file
from fount.export.table import PROVENANCE
from fount.export.target_folder import MANIFEST, Place

__all__ = ["RowsProgress", "pull", "rows_progress"]


_SHARDS = click.IntRange(1, MAX_SHARDS)
_JOBS = click.IntRange(1, 64)


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--out", required=True, envvar="FOUNT_PULL_OUT", show_envvar=True, metavar="DIR", type=click.Path(path_type=Path), help="The folder to write; it is made.")  # fmt: skip  # noqa: E501
@option("--format", type=click.Choice(list(FORMATS)), default="parquet", help="What to write.")
@option("--provenance", type=click.Choice(PROVENANCE), default="ids", help="How much each row tells of its origin.")
@option("--shards", type=_SHARDS, metavar="N", help="Cut the rows into so many shards; unset, as planned.")
@option("--jobs", type=_JOBS, metavar="N", default="4", help="How many streams to pull at a time.")
@click.option("--out-of-bag", envvar="FOUNT_PULL_OUT_OF_BAG", show_envvar=True, is_flag=True, help="Pull the rows that the bootstrap of a plan with a seed, or of a ticket, did not draw.")  # fmt: skip  # noqa: E501
@server_option
@timeout_option
@json_option
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
    after an interruption: finished files are checked and kept, the rest is pulled. DIR/manifest.json is written last.

    \b
    Example:
      fount plan balanced.yaml
      fount pull balanced.yaml --out balanced/
      fount pull balanced.yaml --out tars/ --format webdataset --shards 8
    """  # noqa: D301  # \b is click's: keep the lines as they are
    wanted = Wanted(
        format=FORMATS[format],
        provenance=cast(Level, provenance),
        part="out-of-bag" if out_of_bag else "plan",
        shards=shards,
        jobs=jobs,
    )
    wanted.format.require()
    if is_plan_file(plan):
        load_plan_file(plan)  # what is wrong with it is said before anything is made
    place = Place(out)
    rates: list[float] = []

    @contextmanager
    def showing(total: int, done: int) -> Iterator[Callable[[int], None]]:
        with rows_progress(total, done, quiet=as_json) as progress:
            yield progress.add
            rates.append(progress.rows_per_s)

    with place.held(), connected(server, timeout_s) as client:
        export = Export(client, place, choose(client, place, plan), wanted)
        try:
            outcome = export.run(showing)
        except FountError as error:
            raise FountError(f"{error}\nWhat is finished stays: run the same command again to go on.") from error
    if as_json:
        echo_json({**outcome.manifest, "out": str(out), "made": outcome.made, "made_again": outcome.again})
        return
    for line in _in_words(outcome, out, rates):
        click.echo(plain(line))


def _in_words(outcome: Outcome, out: Path, rates: list[float]) -> Iterator[str]:
    manifest = outcome.manifest
    parts = _files(len(manifest["parts"]))
    if not outcome.made:
        yield f"Already whole: {manifest['written']:,} rows in {parts}, every digest as it was written"
    else:
        rate = f", {rates[0]:,.0f} a second" if rates else ""
        yield f"{manifest['written']:,} rows of plan {manifest['plan_id']}{rate}"
    if outcome.again:
        yield f"Made again  {_files(outcome.again)} that had been changed or cut off"
    if manifest["rejected"]:
        yield f"Rejected    {manifest['rejected']:,} slots that no sample was accepted for; they are left out"
    yield f"Classes     {_counted(manifest['by_class'])}"
    if manifest["by_source"]:
        yield f"Sources     {_counted(manifest['by_source'])}"
    yield f"Written     {out}, {out / MANIFEST}"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"


# FOLDED FROM fount.cli.pull:
# How far a long command is: a bar for somebody who looks, a line now and then for a log.


_LINE_EVERY_S = 10.0


class RowsProgress:
    """Counts rows from any thread, with rows a second and the time left."""

    def __init__(self, total: int, done: int, *, quiet: bool) -> None:
        self._total, self._done, self._quiet = total, done, quiet
        self._lock, self._began_s = Lock(), time.monotonic()
        self._first, self._line_s = done, self._began_s
        is_terminal = sys.stderr.isatty()
        self._says_lines = not is_terminal and not quiet
        self.bar: tqdm[Any] = tqdm(
            total=total, initial=done, unit=" rows", unit_scale=True, disable=quiet or not is_terminal
        )

    @property
    def rows_per_s(self) -> float:
        """Rows a second since it began."""
        return (self._done - self._first) / max(time.monotonic() - self._began_s, 1e-9)

    def add(self, rows: int) -> None:
        """Count rows that came."""
        with self._lock:
            self._done += rows
            self.bar.update(rows)
            if self._says_lines and time.monotonic() - self._line_s >= _LINE_EVERY_S:
                self._line_s = time.monotonic()
                left_s = (self._total - self._done) / max(self.rows_per_s, 1e-9)
                click.echo(
                    f"{self._done:,} of {self._total:,} rows, {self.rows_per_s:,.0f} a second, {left_s:,.0f} s left",
                    err=True,
                )


@contextmanager
def rows_progress(total: int, done: int, *, quiet: bool) -> Iterator[RowsProgress]:
    """Show progress until the block ends.

    Args:
        total: rows in all.
        done: rows that are there already.
        quiet: whether nothing is to be shown.
    """
    progress = RowsProgress(total, done, quiet=quiet)
    with progress.bar:
        yield progress
