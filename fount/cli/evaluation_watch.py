"""Watching an evaluation from a command: a bar for who looks, lines for a log, and how to go on after Ctrl-C."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import click
from tqdm import tqdm

from fount.cli.evaluation_table import echo_evaluation, metric_line, outcome_problem, written_lines
from fount.cli.options import echo_json, plain
from fount.cli.output.reports import write_reports
from fount.client.channel import default_server
from fount.client.sync import Client
from fount.errors import BadReply, DeadlineExceeded, FountError, ServerUnavailable
from fount.evaluation.types import EvaluationInfo, evaluation_json

__all__ = [
    "Detachable",
    "WatchProgress",
    "conclude",
    "detachable",
    "how_to_go_on",
    "watch",
    "watch_progress",
    "when_ready",
]

_LINE_EVERY_S = 4.5
_TICK_S = 0.5
_AWAY_S, _PAUSE_S = 120.0, 1.0  # how long a server may be away, and how often it is looked for
_BAR_ROWS = 20  # lines a terminal is taken to have; the bar needs one
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_NO_TOTAL = "{desc}, {elapsed}"  # tqdm's own would have question marks


class WatchProgress:
    """Shows looks at an evaluation on stderr, and that time goes by before and between them."""

    def __init__(self, *, quiet: bool) -> None:
        is_terminal = _is_terminal()
        self._says_lines, self._quiet = not is_terminal and not quiet, quiet
        self._lock, self._over = Lock(), Event()
        self._began_s = self._line_s = time.monotonic()
        self._stage, self._line = "", "waiting for an answer"
        self._known: set[str] = set()
        self.bar: tqdm[Any] = tqdm(
            desc=self._line,
            unit=" steps",
            bar_format=_NO_TOTAL,
            disable=quiet or not is_terminal,
            leave=False,
            # Said, because a terminal that does not tell its size gets no bar otherwise.
            ncols=shutil.get_terminal_size().columns - 1,
            nrows=_BAR_ROWS,
        )
        self._ticks = Thread(target=self._tick, name="fount-progress", daemon=True)
        self._ticks.start()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if not self._quiet:
            with self._lock:
                self.bar.write(plain(text), file=sys.stderr)

    def show(self, info: EvaluationInfo) -> None:
        """Take a look in."""
        progress, waits = info.progress, info.state == "queued" or not info.progress.stage
        stage = plain(info.state if waits else progress.stage)
        reason = plain(f": {info.state_reason}") if info.state_reason else ""
        with self._lock:
            if not self.bar.disable:
                self._show_metrics(info)
                self._move_bar(info, f"{stage}{reason}")
            self._count_from(info)
            self._line = f"{stage}{reason}"
            if progress.total:
                self._line += f", {progress.done:,} of {progress.total:,} steps"
            if self._stage != stage:
                self._stage = stage
                self._say()

    def close(self) -> None:
        """End the bar and the lines."""
        self._over.set()
        self._ticks.join()
        self.bar.close()

    def _move_bar(self, info: EvaluationInfo, told: str) -> None:
        progress = info.progress
        if self.bar.total is None and progress.total:
            self.bar.initial = progress.done  # done before anybody watched: no part of the rate
        self.bar.total, self.bar.n = progress.total or None, progress.done
        self.bar.bar_format = None if progress.total else _NO_TOTAL
        self.bar.set_description_str(told)

    def _count_from(self, info: EvaluationInfo) -> None:
        """Count the time of one that began before anybody watched from its beginning."""
        if info.started is None or info.is_over:
            return
        earlier_s = (datetime.now(UTC) - info.started).total_seconds() - (time.monotonic() - self._began_s)
        if earlier_s <= 0:
            return
        self._began_s -= earlier_s
        if not self.bar.disable:
            self.bar.start_t -= earlier_s
            self.bar.initial = 0  # its whole time counts, and so does all that was done in it

    def _show_metrics(self, info: EvaluationInfo) -> None:
        for metric in info.metrics:
            if metric.name not in self._known and not info.is_over:
                self._known.add(metric.name)
                self.bar.write(f"so far  {metric_line(metric)}", file=sys.stderr)

    def _tick(self) -> None:
        while not self._over.wait(_TICK_S):
            with self._lock:
                if not self.bar.disable:
                    self.bar.refresh()
                if time.monotonic() - self._line_s >= _LINE_EVERY_S:
                    self._say()

    def _say(self) -> None:
        self._line_s = time.monotonic()
        if self._says_lines:
            click.echo(f"{self._line}, {self._line_s - self._began_s:.0f} s", err=True)


@contextmanager
def watch_progress(*, quiet: bool) -> Iterator[WatchProgress]:
    """Show progress until the block ends.

    Args:
        quiet: whether nothing is to be shown.
    """
    with closing(WatchProgress(quiet=quiet)) as progress:
        yield progress


def when_ready(ask: Callable[[], EvaluationInfo], server: str, progress: WatchProgress) -> EvaluationInfo:
    """Ask again and again while a server says that it cannot yet: workers load, or it is being restarted.

    Raises:
        FountError: no answer came; nobody at the address is told at once.
    """
    ends_s, told = time.monotonic() + _AWAY_S, ""
    while True:
        try:
            return ask()
        except ServerUnavailable as error:
            is_nobody = str(error) == str(ServerUnavailable.no_server_at(server))
            if time.monotonic() >= ends_s or (is_nobody and not told):
                raise
            if str(error) != told:
                told = str(error)
                progress.say(f"{told}; waiting for it, up to {_AWAY_S:.0f} s")
        time.sleep(_PAUSE_S)


def watch(client: Client, id: str, progress: WatchProgress) -> EvaluationInfo:
    """Show how far an evaluation is until it has ended.

    Raises:
        FountError: it cannot be watched to its end; the text says how to go on.
    """
    last: EvaluationInfo | None = None
    with closing(_looks(client, id)) as looks:
        try:
            for last in looks:
                progress.show(last)
        except (ServerUnavailable, DeadlineExceeded) as error:
            commands = how_to_go_on(client.server, id)
            raise FountError(f"{error}\nThe evaluation does not depend on this command:\n{commands}") from error
    if last is None:
        raise BadReply(f"The watch of evaluation {id!r} showed nothing")
    return last


def _looks(client: Client, id: str) -> Generator[EvaluationInfo]:
    """Watch an evaluation, also over a restart of the server, which takes longer than a client is patient."""
    heard_s: float | None = None
    while True:
        try:
            with closing(client.watch_evaluation(id)) as looks:
                for info in looks:
                    heard_s = time.monotonic()
                    yield info
            return
        except (ServerUnavailable, DeadlineExceeded):
            if heard_s is None or time.monotonic() - heard_s >= _AWAY_S:
                raise
            time.sleep(_PAUSE_S)


def conclude(client: Client, info: EvaluationInfo, reports: Sequence[Path], *, as_json: bool) -> None:
    """Write an evaluation that has ended, and its reports.

    Raises:
        ClickException: it did not succeed, or a gate failed.
        FountError: a report did not come, or cannot be written.
    """
    if not as_json:
        echo_evaluation(info)
    written = write_reports(client, info.id, reports) if info.state == "succeeded" else []
    if as_json:
        echo_json({**evaluation_json(info), "reports": written})
    for line in () if as_json else written_lines(written):
        click.echo(line)
    if (problem := outcome_problem(info)) is not None:
        raise click.ClickException(problem)


class Detachable:
    """What a command waits for, which goes on without it.

    Attributes:
        id: the evaluation's; empty before it is known, and once nothing is waited for.
    """

    def __init__(self) -> None:
        self.id = ""


@contextmanager
def detachable(server: str) -> Iterator[Detachable]:
    """Let Ctrl-C end the command, and not the evaluation.

    Raises:
        Exit: it did; how to go on was said.
    """
    waited = Detachable()
    try:
        yield waited
    except KeyboardInterrupt:
        if not waited.id:
            raise
        click.echo(f"Detached; evaluation {plain(waited.id)} goes on.\n{how_to_go_on(server, waited.id)}", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


def how_to_go_on(server: str, id: str) -> str:
    """The commands to watch an evaluation and to end it."""
    named = plain(id if server == default_server() else f"{id} --server {server}")
    return f"  fount evaluation {named} --watch   to go on watching\n  fount evaluation {named} --cancel  to end it"


def _is_terminal() -> bool:
    """Whether somebody may be looking; a bar in a log is noise."""
    return sys.stderr.isatty()
