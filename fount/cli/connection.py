"""Connect a command to a server, so that Ctrl-C ends it cleanly.

A KeyboardInterrupt can be raised anywhere, also inside gRPC's locks, and a call interrupted there may never end. So the
first Ctrl-C closes the client from another thread: the calls end, the command cleans up, and then it stops. A second
Ctrl-C raises KeyboardInterrupt as usual.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from fount.cli.output.text import plain
from fount.client.catalog import ModelInfo
from fount.client.sync import Client
from fount.errors import Loading
from fount.retry import RetryPolicy, RetryState

__all__ = ["connected", "loaded_model"]


def _report(text: str) -> None:
    tqdm.write(plain(text), file=sys.stderr)


_RETRY = RetryPolicy(on_wait=_report)
"""Calls are repeated as usual; what they wait for is written to stderr, above a progress bar."""


@contextmanager
def connected(server: str, timeout_s: float) -> Iterator[Client]:
    """Open a client until the block ends; Ctrl-C ends the block early with a KeyboardInterrupt."""
    with Client(server, timeout_s=timeout_s, retry=_RETRY) as client:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield client  # the process that started the command ignores or handles Ctrl-C
            return
        interrupted, finished = threading.Event(), threading.Event()

        def interrupt(*_: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            interrupted.set()

        def close_when_interrupted() -> None:
            interrupted.wait()
            if not finished.is_set():
                client.close()

        threading.Thread(target=close_when_interrupted, name="fount-interrupt", daemon=True).start()
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield client
        except BaseException:
            if interrupted.is_set():
                raise KeyboardInterrupt from None
            raise
        else:
            if interrupted.is_set():  # too late to end a call, but the command still has to exit as interrupted
                raise KeyboardInterrupt
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            finished.set()
            interrupted.set()  # lets the thread end


def loaded_model(client: Client, name: str, digest: str | None, timeout_s: float) -> ModelInfo:
    """Look up a model; while its workers load, its classes and shape may be unknown, so wait for them."""
    retry = RetryState(timeout_s, _RETRY)
    while (info := client.model(name, digest=digest)).state == "loading":
        time.sleep(retry.delay_s(Loading(f"{info.name}:{info.version} is loading")))
    return info
