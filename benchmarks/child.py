"""Child processes that are told what to do: one JSON line in, one JSON line out.

Clients and limits run as such, so that what they cost is seen apart, and so that the process that measures does not
compute.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["ROOT", "Child", "ChildError"]

ROOT = Path(__file__).parents[1]
_STOP_S = 10.0


class ChildError(Exception):
    """A client or limit process failed. What it wrote to stderr says why."""


class Child:
    """One process.

    Args:
        module: what `python -m` runs; it says one line when it is ready.
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

    def tell(self, command: Mapping[str, Any]) -> None:
        """Send a command; its answer waits for `answer`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildError(f"{self._name} ended with {self._process.wait()}") from error

    def answer(self) -> dict[str, Any]:
        """Wait for the answer of the oldest command, or for the line that says it is ready.

        Raises:
            ChildError: it said what went wrong, or ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self._name} ended with {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise ChildError(f"{self._name}: {told['error']}")
        return told

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.tell(command)
        return self.answer()

    def close(self) -> None:
        """End it: the end of its input is the end of its work."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with suppress(BrokenPipeError):  # it ended with a command unread
                    stream.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
