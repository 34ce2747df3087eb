"""`fount serve` for the length of a block, as an operator starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.child import ROOT
from benchmarks.processes import end_group

__all__ = ["ServeFailed", "serve"]

_SAID = re.compile(r"gRPC on port (\d+);")
_READY_S = 300.0


class ServeFailed(Exception):
    """`fount serve` did not come up. The log it names says why."""


@contextmanager
def serve(store: Path, datasets: Mapping[str, Path], work: Path, *options: str) -> Iterator[str]:
    """Serve a model store and data sets; gives HOST:PORT.

    Raises:
        ServeFailed: it did not come up.
    """
    command = [sys.executable, "-m", "fount", "serve", "--model-store", str(store), "--port", "0", "--http-port", "0"]
    command += ["--state-dir", str(work / "state"), *options]
    for name, folder in datasets.items():
        command += ["--data-set", f"{name}={folder}"]
    log = work / "serve.log"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FOUNT_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=kept | {"PYTHONUNBUFFERED": "1"}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, text=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _READY_S
        while process.poll() is None and time.monotonic() < deadline:
            if found := _SAID.search(log.read_text(errors="replace")):
                yield f"127.0.0.1:{found[1]}"
                return
            time.sleep(0.3)
        raise ServeFailed(f"fount serve did not come up; see {log}")
    finally:
        end_group(process)
