"""The child process of `fount check`: it runs a model as a worker would, and sends one JSON line an event.

Everything the model's author wrote runs here, so whatever it does, be it to end the process, cannot harm the command.
Events go to a pipe of their own; what the author's code prints goes elsewhere.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from handlers.checks.finding import finding_to_json
from handlers.checks.registry import CHECKS, run_checks
from handlers.checks.subject import Subject
from handlers.settings import Settings

__all__ = ["main"]


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
