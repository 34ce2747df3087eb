"""How far a long command is: a bar for somebody who looks, a line now and then for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import click
from tqdm import tqdm

__all__ = ["RowsProgress", "rows_progress"]

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
