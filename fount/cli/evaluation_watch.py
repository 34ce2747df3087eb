"""Wait for an evaluation: progress as a bar or lines, retries while the server is away, and detaching by Ctrl-C.

Used by `fount evaluate` and `fount evaluation --watch`. Snapshots of an evaluation enter; progress goes to stderr, and
the final evaluation is returned.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

import click
from tqdm import tqdm

from fount.cli.evaluation_summary import evaluation_lines, failure, metric_line, report_lines
from fount.cli.output.reports import write_reports
from fount.cli.output.text import echo_result, error_is_terminal, plain
from fount.client.channel import default_server
from fount.client.sync import Client
from fount.errors import BadReply, DeadlineExceeded, FountError, Loading, NoServer, ServerUnavailable
from fount.evaluation.types import EvaluationInfo, evaluation_json

__all__ = ["WatchProgress", "conclude", "continuation", "detach_on_interrupt", "retry_until_ready", "watch"]

_LINE_INTERVAL_S = 4.5
_REFRESH_INTERVAL_S = 0.5
_MAX_OUTAGE_S, _RETRY_INTERVAL_S = 120.0, 1.0
_BAR_ROWS = 20  # terminal height assumed by tqdm, which gives no bar when it is unknown
_INTERRUPTED = 130  # exit code after SIGINT, 128 + 2
_BAR_WITHOUT_TOTAL = "{desc}, {elapsed}"  # tqdm's own shows question marks


class WatchProgress:
    """Shows snapshots of an evaluation on stderr, and the elapsed time between them, until the block ends."""

    def __init__(self, *, quiet: bool) -> None:
        show_bar = error_is_terminal() and not quiet
        self._quiet, self._show_lines = quiet, not show_bar and not quiet
        self._lock, self._closed = Lock(), Event()
        self._start_s = self._line_s = time.monotonic()
        self._shown, self._line = "", "waiting for an answer"
        self._shown_metrics: set[str] = set()
        self.bar: tqdm[Any] = tqdm(
            desc=self._line,
            unit=" steps",
            bar_format=_BAR_WITHOUT_TOTAL,
            disable=not show_bar,
            leave=False,
            ncols=shutil.get_terminal_size().columns - 1,
            nrows=_BAR_ROWS,
        )
        self._thread = Thread(target=self._refresh, name="fount-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self.bar.close()

    def print(self, text: str) -> None:
        """Write a line that stays above the bar."""
        if not self._quiet:
            with self._lock:
                self.bar.write(plain(text), file=sys.stderr)

    def show(self, info: EvaluationInfo) -> None:
        """Show a snapshot."""
        progress, is_waiting = info.progress, info.state == "queued" or not info.progress.stage
        stage = plain(info.state if is_waiting else progress.stage)
        text = stage + (plain(f": {info.state_reason}") if info.state_reason else "")
        with self._lock:
            if not self.bar.disable:
                self._print_new_metrics(info)
                if self.bar.total is None and progress.total:
                    self.bar.initial = progress.done  # done before the watch started: not part of the rate
                self.bar.total, self.bar.n = progress.total or None, progress.done
                self.bar.bar_format = None if progress.total else _BAR_WITHOUT_TOTAL
                self.bar.set_description_str(text)
            self._count_from_start_of(info)
            self._line = text + (f", {progress.done:,} of {progress.total:,} steps" if progress.total else "")
            if self._shown != text:
                self._shown = text
                self._print_line()

    def _print_new_metrics(self, info: EvaluationInfo) -> None:
        for metric in info.metrics:
            if metric.name not in self._shown_metrics and not info.is_over:
                self._shown_metrics.add(metric.name)
                self.bar.write(f"so far  {metric_line(metric)}", file=sys.stderr)

    def _count_from_start_of(self, info: EvaluationInfo) -> None:
        """Include the time that the evaluation ran before the watch started."""
        if info.started is None or info.is_over:
            return
        earlier_s = (datetime.now(UTC) - info.started).total_seconds() - (time.monotonic() - self._start_s)
        if earlier_s > 0:
            self._start_s -= earlier_s
            if not self.bar.disable:
                self.bar.start_t -= earlier_s
                self.bar.initial = 0  # the rate now covers the whole time, and so all steps

    def _refresh(self) -> None:
        while not self._closed.wait(_REFRESH_INTERVAL_S):
            with self._lock:
                if not self.bar.disable:
                    self.bar.refresh()
                if time.monotonic() - self._line_s >= _LINE_INTERVAL_S:
                    self._print_line()

    def _print_line(self) -> None:
        self._line_s = time.monotonic()
        if self._show_lines:
            click.echo(f"{self._line}, {self._line_s - self._start_s:.0f} s", err=True)


def retry_until_ready(request: Callable[[], EvaluationInfo], progress: WatchProgress) -> EvaluationInfo:
    """Repeat a request while the server restarts; if none answers the first attempt, fail at once.

    The client itself waits for models that load, within its timeout.
    """
    end_s, reported = time.monotonic() + _MAX_OUTAGE_S, ""
    while True:
        try:
            return request()
        except ServerUnavailable as error:
            is_final = isinstance(error, Loading) or (isinstance(error, NoServer) and not reported)
            if is_final or time.monotonic() >= end_s:
                raise
            if str(error) != reported:
                reported = str(error)
                progress.print(f"{reported}; retrying for up to {_MAX_OUTAGE_S:.0f} s")
        time.sleep(_RETRY_INTERVAL_S)


def watch(client: Client, id: str, progress: WatchProgress) -> EvaluationInfo:
    """Show the progress of an evaluation until it has ended, and return its final snapshot."""
    last: EvaluationInfo | None = None
    with closing(_snapshots(client, id)) as snapshots:
        try:
            for last in snapshots:
                progress.show(last)
        except (ServerUnavailable, DeadlineExceeded) as error:
            commands = continuation(client.server, id)
            raise FountError(f"{error}\nThe evaluation continues without this command:\n{commands}") from error
    if last is None:
        raise BadReply(f"The watch of evaluation {id!r} returned nothing")
    return last


def _snapshots(client: Client, id: str) -> Generator[EvaluationInfo]:
    """Watch an evaluation, also across a restart of the server, which exceeds the client's own retries."""
    last_s: float | None = None
    while True:
        try:
            with closing(client.watch_evaluation(id)) as snapshots:
                for info in snapshots:
                    last_s = time.monotonic()
                    yield info
            return
        except (ServerUnavailable, DeadlineExceeded):
            if last_s is None or time.monotonic() - last_s >= _MAX_OUTAGE_S:
                raise
            time.sleep(_RETRY_INTERVAL_S)


def conclude(client: Client, info: EvaluationInfo, reports: Sequence[Path], *, as_json: bool) -> None:
    """Show an evaluation that has ended, and write its reports; fail if it did not succeed, or a gate failed."""
    if not as_json:  # before the reports, whose download may fail
        echo_result(None, evaluation_lines(info), as_json=False)
    written = write_reports(client, info.id, reports) if info.state == "succeeded" else []
    echo_result({**evaluation_json(info), "reports": written}, report_lines(written), as_json=as_json)
    if (problem := failure(info)) is not None:
        raise click.ClickException(problem)


@dataclass
class _Watched:
    """The id of the evaluation that is being watched; None before it is known, and after the watch."""

    id: str | None = None


@contextmanager
def detach_on_interrupt(server: str) -> Iterator[_Watched]:
    """Let Ctrl-C end the command, but not the evaluation whose id the block sets; print the commands to continue."""
    watched = _Watched()
    try:
        yield watched
    except KeyboardInterrupt:
        if watched.id is None:
            raise
        click.echo(f"Detached; evaluation {plain(watched.id)} continues.\n{continuation(server, watched.id)}", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


def continuation(server: str, id: str) -> str:
    """Return the commands that watch an evaluation further and that cancel it."""
    target = plain(id if server == default_server() else f"{id} --server {shlex.quote(server)}")
    return (
        f"  fount evaluation {target} --watch   to watch it again\n  fount evaluation {target} --cancel  to cancel it"
    )
