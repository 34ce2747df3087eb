"""The order in which calls use a model: one at a time, as they arrived.

Calls come from TorchServe's loop and from the threads of the gRPC server. A call that is cancelled while it waits
leaves at once; one that runs finds out at its next `Deadline.check`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from handlers.execution.errors import ItemError

__all__ = ["Call", "ModelLock"]


@dataclass(eq=False)
class Call:
    """One call, from its arrival to its reply.

    Attributes:
        is_cancelled: whether nobody waits for its reply any more.
    """

    is_cancelled: bool = False


class ModelLock:
    """A lock that calls get in the order of their arrival, and stop waiting for when they are cancelled."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: deque[Call] = deque()  # the first one holds the lock

    @contextmanager
    def hold(self, call: Call) -> Iterator[None]:
        """Wait for the lock and hold it.

        Raises:
            ItemError: the call was cancelled before it got the lock.
        """
        with self._changed:
            self._calls.append(call)
            self._changed.wait_for(lambda: call.is_cancelled or self._calls[0] is call)
        try:
            if call.is_cancelled:
                raise ItemError("DEADLINE_PASSED", "the call was cancelled before it ran; send it again if needed")
            yield
        finally:
            with self._changed:
                self._calls.remove(call)
                self._changed.notify_all()

    def cancel(self, call: Call) -> None:
        """Mark a call as cancelled, whether it waits, runs or is done."""
        with self._changed:
            call.is_cancelled = True
            self._changed.notify_all()
