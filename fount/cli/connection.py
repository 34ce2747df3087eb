"""A command's connection to a server, which Ctrl-C closes.

A KeyboardInterrupt may land anywhere, gRPC's own locks included, and a call cut there never ends. So the first Ctrl-C
closes the client from another thread: the calls end, the command tidies up, and then it is stopped. A second one is
Python's own.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fount.client.sync import Client

__all__ = ["connected"]


@contextmanager
def connected(server: str, timeout_s: float) -> Iterator[Client]:
    """Open a client until the block ends.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the block early.
    """
    with Client(server, timeout_s=timeout_s) as client:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield client  # whoever started the command ignores or handles Ctrl-C
            return
        asked, over = threading.Event(), threading.Event()

        def ask(*_: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            asked.set()

        def close() -> None:
            asked.wait()
            if not over.is_set():
                client.close()

        threading.Thread(target=close, name="fount-interrupt", daemon=True).start()
        signal.signal(signal.SIGINT, ask)
        try:
            yield client
        except BaseException:
            if asked.is_set():
                raise KeyboardInterrupt from None
            raise
        else:
            if asked.is_set():  # too late to end anything, but whoever pressed it is told so
                raise KeyboardInterrupt
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            over.set()
            asked.set()
