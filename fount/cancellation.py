"""Stop work in a thread that nobody waits for any more.

A thread cannot be cancelled from outside, so long work calls `check_cancelled` once for each piece of it. Whoever runs
the work enters `cancelled_by` in that thread; without it the check does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

__all__ = ["WorkCancelled", "cancelled_by", "check_cancelled"]

_event: ContextVar[Event | None] = ContextVar("fount_cancelled", default=None)


class WorkCancelled(Exception):
    """The result of the work in this thread is not needed any more."""


@contextmanager
def cancelled_by(event: Event) -> Iterator[None]:
    """Let `check_cancelled` end the work in this block, in this thread, once the event is set."""
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def check_cancelled() -> None:
    """Raise WorkCancelled if nobody waits for the work in this thread any more."""
    event = _event.get()
    if event is not None and event.is_set():
        raise WorkCancelled("nobody waits for this work any more")
