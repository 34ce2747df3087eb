"""The child process of `fount check`, which runs the model as a worker would, and the parent that reads its events.

All of the author's code runs in the child, so it cannot end the command. The child writes one JSON line for each event
to a pipe of its own; what the author's code prints goes to a file. When the child dies, one check takes too long, or
the author's code writes to the pipe, the check it was in fails; later checks are skipped. Only the child imports torch.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from fount.documents import record
from fount.environment import child_environment, python_command
from handlers.checks.report import Finding, failed, skipped

__all__ = ["CheckRequest", "Running", "main", "run_in_child"]


_POLL_S = 0.1
_START_S = 120.0
_STACK_S = 0.5  # in which the child writes its stack
_EXIT_S = 5.0  # in which the child ends after it closed the pipe
_MAX_EVENT_BYTES = 2**20
_MAX_PRINTED = 2000  # last characters of the process's output in a finding
_MAX_READ_BYTES = 2**16  # of the process's output, at its end
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_STACK_LINE = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """The model to check, and how; its fields are those of `handlers.checks.subject.Subject` and of `Settings`.

    `worker_env` names variables that the child gets in addition to those that every worker gets.
    """

    folder: Path
    picture: Path
    record: bool
    time_limit_s: float
    modes: bool
    threads: int
    device: str
    worker_env: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialise it for the child, with absolute paths, since its working folder is another."""
        paths = {"folder": str(self.folder.resolve()), "picture": str(self.picture.resolve())}
        fields = {name: value for name, value in vars(self).items() if name != "worker_env"}
        return json.dumps(fields | paths)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A check has run for `seconds`; 0 when it starts."""

    check: str
    seconds: float


def run_in_child(request: CheckRequest) -> Iterator[Running | Finding]:
    """Run the checks in a child process.

    Returns:
        Events as they arrive: a `Running` before each check and ten times a second while it runs, and its `Finding`.
    """
    with tempfile.TemporaryDirectory(prefix="fount-check-") as working_folder, tempfile.TemporaryFile() as printed:
        read_end, write_end = os.pipe()
        try:
            process = _start(request, write_end, Path(working_folder), printed)
        finally:
            os.close(write_end)
        try:
            yield from _EventReader(process=process, pipe=read_end, printed=printed, request=request).events()
        finally:
            process.kill()
            process.wait()
            os.close(read_end)


def _start(request: CheckRequest, pipe: int, working_folder: Path, printed: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the child like a worker: with its threads, and a working folder without the author's files."""
    threads = {"OMP_NUM_THREADS": str(request.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = python_command("-m", "handlers.checks.process", request.to_json(), str(pipe))
    return subprocess.Popen(
        command,
        env=child_environment(request.worker_env) | threads,
        cwd=working_folder,
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=printed,
        pass_fds=(pipe,),
    )


@record
class _Event:
    """One line of the child: exactly one of these.

    Attributes:
        order: all checks, once, before any other event.
        begin: the check that starts; the next one in order.
        finding: of the next check in order.
        end: after the last finding.
    """

    order: tuple[str, ...] = ()
    begin: str = ""
    finding: Finding | None = None
    end: bool = False


_EVENTS = TypeAdapter(_Event)


@dataclass(kw_only=True)
class _EventReader:
    """Reads the child's events until it ends, dies, exceeds a time limit, or writes what is no event."""

    process: subprocess.Popen[bytes]
    pipe: int
    printed: IO[bytes]
    request: CheckRequest
    check: str = "card"
    begun: str = ""
    since: float = 0.0
    pending: list[str] | None = None
    has_ended: bool = False

    def events(self) -> Iterator[Running | Finding]:
        self.since = time.monotonic()
        for line in self._lines():
            seconds = time.monotonic() - self.since
            if line is not None:
                try:
                    event = self._take(line)
                except ValueError:
                    yield from self._fail(self._report_foreign_line())
                    return
                if self.has_ended:
                    return
                yield event or Running(check=self.check, seconds=seconds)
            elif seconds > self._limit_s:
                yield from self._fail(self._time_out())
                return
            else:
                yield Running(check=self.check, seconds=seconds)
        yield from self._fail(self._report_death())

    @property
    def _limit_s(self) -> float:
        """How long no event may arrive: the limit of a check, or the time for the process to import torch."""
        return self.request.time_limit_s if self.pending else max(self.request.time_limit_s, _START_S)

    def _lines(self) -> Iterator[bytes | None]:
        """Return complete lines as they arrive, one that is too long as far as it was read, and None at idle polls."""
        partial = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while True:
                if not selector.select(_POLL_S):
                    if self.process.poll() is not None:
                        return
                    yield None
                    continue
                if not (read := os.read(self.pipe, 1 << 16)):
                    return
                *lines, partial = (partial + read).split(b"\n")
                yield from lines
                if len(partial) > _MAX_EVENT_BYTES:
                    yield partial

    def _take(self, line: bytes) -> Running | Finding | None:
        """Read the next event of the child. Each is expected once, so that a model cannot put off the time limit.

        Raises:
            ValueError: the line is no event, or not the next one: the model's code wrote it.
        """
        if len(line) > _MAX_EVENT_BYTES:
            raise ValueError("the line is too long")
        event, self.since = _EVENTS.validate_json(line), time.monotonic()
        following = self.pending[0] if self.pending else None
        if event.order and self.pending is None:
            self.pending = list(event.order)
        elif event.begin and event.begin == following != self.begun:
            self.check = self.begun = event.begin
            return Running(check=self.check, seconds=0.0)
        elif event.finding and event.finding.check == following:
            self.pending = self.pending[1:] if self.pending else []
            return event.finding
        elif event.end and self.pending == []:
            self.has_ended = True
        else:
            raise ValueError("the event is not the next one")
        return None

    def _fail(self, finding: Finding) -> Iterator[Finding]:
        """Return the finding of the check that ended the run, and skip the remaining checks."""
        yield finding
        yield from (skipped(name, f"needs {finding.check}") for name in self.pending or () if name != finding.check)

    def _time_out(self) -> Finding:
        """Let the child's fault handler write its stack, and end it."""
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(_STACK_S)
        self.process.kill()
        self.process.wait()
        seen = f"not done after {self.request.time_limit_s:g} s{self._position()}"
        change = "look for a loop that does not end, or allow more time with --time-limit"
        return failed(self.check, seen, change, blocks=True)

    def _report_foreign_line(self) -> Finding:
        self.process.kill()
        seen = "the model's code wrote something else to the pipe of the check"
        change = "write to no file that the code did not open: look for os.write, os.fdopen and loops over descriptors"
        return failed(self.check, seen, change, blocks=True)

    def _report_death(self) -> Finding:
        try:
            status = self.process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            change = "close no file that the code did not open: look for os.close and os.closerange"
            return failed(self.check, "the model's code closed the pipe of the check", change, blocks=True)
        if status >= 0:
            seen = f"the model's code ended the process with exit status {status}"
            change = "remove calls of exit, sys.exit and os._exit"
        elif -status in _CRASHES:
            seen = f"native code crashed ({_name_signal(-status)}){self._position()}"
            change = "check the native code that is called there outside torch, or try another version of it"
        else:
            seen = f"the process was killed ({_name_signal(-status)}), most likely because memory ran out"
            change = "lower limits.max_exec_batch in model.yaml, or check it on a machine with more memory"
        text = self._printed_text()[-_MAX_PRINTED:].split("Fatal Python error")[0].strip()  # without the stack
        printed = "\nit printed: " + text.replace("\n", "\n  ") if text else ""
        return failed(self.check, f"{seen}{printed}", change, blocks=True)

    def _position(self) -> str:
        """Name the innermost line of the model's folder in the stack that the fault handler wrote; "" without one."""
        for file, line, function in _STACK_LINE.findall(self._printed_text()):
            if Path(file).parent == self.request.folder.resolve():
                return f", in {function} ({Path(file).name}, line {line})"
        return ""

    def _printed_text(self) -> str:
        """Return the end of what the process printed."""
        size = self.printed.seek(0, os.SEEK_END)
        self.printed.seek(max(0, size - _MAX_READ_BYTES))
        return self.printed.read(_MAX_READ_BYTES).decode(errors="replace")


def _name_signal(number: int) -> str:
    names = {each.value: each.name for each in signal.Signals}  # most real-time signals have none
    return names.get(number, f"signal {number}")


def main(request: str, pipe: int) -> None:
    """Run the checks in the child process.

    Args:
        request: JSON of a `CheckRequest`.
        pipe: file descriptor that events are written to: {"order": checks} first, {"begin": check} and
            {"finding": ...} for each, then {"end": true}.
    """
    import torch

    from handlers.checks.registry import CHECKS, run_checks
    from handlers.checks.subject import Subject
    from handlers.settings import Settings

    options = json.loads(request)
    os.set_inheritable(pipe, False)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # writes the stack to standard error when timed out
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = Settings(device=options.pop("device"), threads=options.pop("threads"))
    torch.set_num_threads(settings.threads)
    folder, picture = Path(options.pop("folder")), Path(options.pop("picture"))
    subject = Subject(folder=folder, picture=picture, settings=settings, **options)
    _send(pipe, {"order": [check.name for check in CHECKS]})
    for finding in run_checks(subject, begin=lambda name: _send(pipe, {"begin": name})):
        _send(pipe, {"finding": dataclasses.asdict(finding)})
    _send(pipe, {"end": True})
    os._exit(0)  # without waiting for threads and exit handlers of the author's code


def _send(pipe: int, event: dict[str, Any]) -> None:
    line = memoryview(json.dumps(event).encode() + b"\n")
    while line:
        line = line[os.write(pipe, line) :]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
