"""Child processes with a JSON-lines protocol: one command line in, one result line out.

Load clients and limits run as such children, so that their cost is measured separately and the measuring process does
not compute. `Child` is the parent's side, `serve_commands` the child's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["ROOT", "Child", "ChildError", "serve_commands", "write_result"]

ROOT = Path(__file__).parents[1]
_STOP_S = 10.0


class ChildError(Exception):
    """A client or limit process failed. Its standard error says why."""


class Child:
    """One child process.

    Args:
        module: what `python -m` runs; it writes one line when it is ready.
        arguments: its command line.
        environment: its environment; None is this process's.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._name = f"{module} {' '.join(arguments)}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=None if environment is None else dict(environment),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command without waiting for its result."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildError(f"{self._name} exited with {self._process.wait()}") from error

    def receive(self) -> dict[str, Any]:
        """Wait for the result of the oldest command, or for the line that reports readiness.

        Raises:
            ChildError: the child reported an error or exited.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self._name} exited with {self._process.wait()}")
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise ChildError(f"{self._name}: {result['error']}")
        return result

    def call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self.send(command)
        return self.receive()

    def close(self) -> None:
        """End the process: it exits at the end of its input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with suppress(BrokenPipeError):  # it exited before it read a command
                    stream.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve_commands(handle: Callable[[dict[str, Any]], dict[str, Any]], ready: Mapping[str, Any] | None = None) -> None:
    """Run in a child: report readiness, then handle the commands of standard input until it ends."""
    write_result(ready or {"ready": True})
    for line in sys.stdin:
        write_result(handle(json.loads(line)))


def write_result(result: Mapping[str, Any]) -> None:
    """Write one result line to the parent."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
