"""The parent's side of `fount check`: it starts the child process, reads its events, and outlives it.

When the child dies or one check takes too long, that is the finding of the check it was in, with what the process said
last; the checks after it are skipped. Nothing here imports torch.
"""

from __future__ import annotations

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from handlers.checks.finding import Finding, failed, finding_from_json, finding_to_json, skipped
from handlers.checks.registry import CHECKS, run_checks
from handlers.checks.subject import Subject
from handlers.settings import Settings

__all__ = ["Begin", "CheckRequest", "main", "run_in_child"]


_POLL_S = 0.1
_START_S = 120.0
_MOST_PRINTED = 2000  # characters of what the process printed last
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_STACK_LINE = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What to check, and how.

    Attributes:
        folder: the model's.
        picture: where its picture goes.
        record: whether golden samples may be written.
        time_limit_s: how long one check may take.
        threads: of one operation on a CPU.
        device: a torch device.
    """

    folder: Path
    picture: Path
    record: bool
    time_limit_s: float
    threads: int
    device: str

    def to_json(self) -> str:
        """Write it for the child, paths in full: its working folder is another."""
        paths = {"folder": str(self.folder.resolve()), "picture": str(self.picture.resolve())}
        return json.dumps(vars(self) | paths)


@dataclass(frozen=True, kw_only=True)
class Begin:
    """A check began; or, with the same name, it is still running after `seconds`."""

    check: str
    seconds: float = 0.0


def run_in_child(request: CheckRequest) -> Iterator[Begin | Finding]:
    """Run the checks in a process of their own.

    Returns:
        Events as they come: a `Begin` before each check and ten times a second while it runs, and its `Finding`.
    """
    with tempfile.TemporaryDirectory(prefix="fount-check-") as elsewhere, tempfile.TemporaryFile() as printed:
        read_end, write_end = os.pipe()
        try:
            process = _start(request, write_end, Path(elsewhere), printed)
        finally:
            os.close(write_end)
        try:
            yield from _Listening(process=process, pipe=read_end, printed=printed, request=request).events()
        finally:
            process.kill()
            process.wait()
            os.close(read_end)


def _start(request: CheckRequest, pipe: int, elsewhere: Path, printed: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the child as a worker is: its threads, and a working folder where it finds nothing of the author's."""
    threads = {"OMP_NUM_THREADS": str(request.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-P", "-m", "handlers.checks.process", request.to_json(), str(pipe)]
    return subprocess.Popen(
        command,
        env=os.environ | threads,
        cwd=elsewhere,
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=printed,
        pass_fds=(pipe,),
    )


@dataclass(kw_only=True)
class _Listening:
    """Reads the child's events until it ends, dies, or takes too long."""

    process: subprocess.Popen[bytes]
    pipe: int
    printed: IO[bytes]
    request: CheckRequest
    check: str = "card"
    since: float = 0.0
    waiting: list[str] = field(default_factory=list)
    is_over: bool = False

    def events(self) -> Iterator[Begin | Finding]:
        self.since = time.monotonic()
        for line in self._lines():
            if line:
                yield from self._read(line)
            elif time.monotonic() - self.since > self._limit_s:
                yield from self._give_up(self._say_too_long())
                return
            else:
                yield Begin(check=self.check, seconds=time.monotonic() - self.since)
            if self.is_over:
                return
        yield from self._give_up(self._say_death())

    @property
    def _limit_s(self) -> float:
        """How long nothing may come: the time of a check, or of the process to start, which imports torch."""
        return self.request.time_limit_s if self.waiting else max(self.request.time_limit_s, _START_S)

    def _lines(self) -> Iterator[bytes]:
        """Give whole lines as they come; an empty one while nothing does."""
        waiting = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while True:
                if not selector.select(_POLL_S):
                    if self.process.poll() is not None:
                        return
                    yield b""
                    continue
                if not (read := os.read(self.pipe, 1 << 16)):
                    return
                *lines, waiting = (waiting + read).split(b"\n")
                yield from (line for line in lines if line)

    def _read(self, line: bytes) -> Iterator[Begin | Finding]:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:  # not ours: the model's code wrote to every file it found open
            return
        self.since = time.monotonic()
        if "begin" in event:
            self.check = event["begin"]
            yield Begin(check=self.check)
        elif "finding" in event:
            finding = finding_from_json(event["finding"])
            self.waiting.remove(finding.check)
            yield finding
        elif "order" in event:
            self.waiting = event["order"]
        else:
            self.is_over = True

    def _give_up(self, finding: Finding) -> Iterator[Finding]:
        """Give the finding of the check that ended all, and those of the checks that were never reached."""
        yield finding
        yield from (skipped(name, f"needs {finding.check}") for name in self.waiting if name != finding.check)

    def _say_too_long(self) -> Finding:
        """Ask the child where it is, which its fault handler writes down, and end it."""
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(5 * _POLL_S)
        self.process.kill()
        self.process.wait()
        seen = f"not done after {self.request.time_limit_s:g} s{self._tell_place()}"
        change = "look for a loop that does not end; or allow more time with --time-limit"
        return failed(self.check, seen, change, blocks=True)

    def _say_death(self) -> Finding:
        status = self.process.wait()
        if status >= 0:
            seen = f"the model's code ended the process with exit status {status}"
            change = "remove calls of exit, sys.exit and os._exit"
        elif -status in _CRASHES:
            seen = f"native code crashed ({signal.Signals(-status).name}){self._tell_place()}"
            change = "look at what is called there outside torch, or try another version of it"
        else:
            seen = f"the process was killed ({signal.Signals(-status).name}), most likely because memory ran out"
            change = "lower limits.max_exec_batch in model.yaml, or check it on a machine with more memory"
        return failed(self.check, f"{seen}{self._tell_printed()}", change, blocks=True)

    def _tell_place(self) -> str:
        """Name the innermost line of the model's folder in the stack that the fault handler wrote, if there is one."""
        for file, line, function in _STACK_LINE.findall(self._printed_text()):
            if Path(file).parent == self.request.folder.resolve():
                return f", in {function} ({Path(file).name}, line {line})"
        return ""

    def _tell_printed(self) -> str:
        """Give what the process printed last, but for stacks."""
        text = self._printed_text()[-_MOST_PRINTED:].split("Fatal Python error")[0].strip()
        return "\nit printed: " + text.replace("\n", "\n  ") if text else ""

    def _printed_text(self) -> str:
        self.printed.seek(0)
        return self.printed.read().decode(errors="replace")


# FOLDED FROM handlers.checks.process:
# The child process of `fount check`: it runs a model as a worker would, and sends one JSON line an event.
# Everything the model's author wrote runs here, so whatever it does, be it to end the process, cannot harm the
# command. Events go to a pipe of their own; what the author's code prints goes elsewhere.


def main(request: str, pipe: int) -> None:
    """Run the checks.

    Args:
        request: JSON of folder, picture, record, time_limit_s, threads and device.
        pipe: file descriptor that events are written to: {"order": checks} first, {"begin": check} and
            {"finding": ...} for each, then {"end": true}.
    """
    wanted = json.loads(request)
    os.set_inheritable(pipe, False)
    _show_stacks()
    settings = Settings(device=wanted["device"], threads=wanted["threads"])
    torch.set_num_threads(settings.threads)
    subject = Subject(
        folder=Path(wanted["folder"]),
        settings=settings,
        picture=Path(wanted["picture"]),
        record=wanted["record"],
        time_limit_s=wanted["time_limit_s"],
    )
    _send(pipe, {"order": [check.name for check in CHECKS]})
    for finding in run_checks(subject, begin=lambda name: _send(pipe, {"begin": name})):
        _send(pipe, {"finding": finding_to_json(finding)})
    _send(pipe, {"end": True})
    os._exit(0)  # threads and exit handlers of the author's code are not waited for


def _show_stacks() -> None:
    """Write the stack to standard error when native code crashes, or when the command asks before it ends this."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _send(pipe: int, event: dict[str, Any]) -> None:
    line = memoryview(json.dumps(event).encode() + b"\n")
    while line:
        line = line[os.write(pipe, line) :]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
