"""Being asked to stop: the first Ctrl-C or SIGTERM is noted, so that a run can put its state away; a second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interruption", "noticing_interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Which signal came, if any.

    Attributes:
        signal: the first that came; None so far.
    """

    signal: signal.Signals | None = None


@contextmanager
def noticing_interruption() -> Iterator[Interruption]:
    """Note the first signal instead of ending. Python allows that in the main thread alone; elsewhere none is noted."""
    seen = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        seen.signal = signal.Signals(number)
        put_back()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        put_back()
