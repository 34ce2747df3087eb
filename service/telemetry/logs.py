"""Limit log lines that repeat, so that a failure that recurs many times a second does not fill a disk."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

__all__ = ["RepeatLimit"]

_MOST_TEMPLATES = 1024  # counted at once


@dataclass(kw_only=True)
class _Window:
    start_s: float
    passed: int = 0
    left_out: int = 0


class RepeatLimit(logging.Filter):
    """Passes the first records of a template in a period, and says in its next period how many were left out.

    A template is a message before its values are filled in, at one level of one logger.

    Args:
        most: records of a template in a period.
        period_s: length of a period.
    """

    def __init__(self, most: int = 1000, period_s: float = 60.0) -> None:
        super().__init__()
        self._most, self._period_s = most, period_s
        self._windows: dict[tuple[str, int, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written; the first after others were left out has their number."""
        now = time.monotonic()
        template = (record.name, record.levelno, str(record.msg))
        window = self._windows.get(template)
        if window is None or now - window.start_s >= self._period_s:
            if window is not None and window.left_out:
                record.msg = f"{record.getMessage()} ({window.left_out} lines like this were left out before)"
                record.args = None
            if len(self._windows) >= _MOST_TEMPLATES:
                self._windows.clear()
            window = self._windows[template] = _Window(start_s=now)
        if window.passed >= self._most:
            window.left_out += 1
            return False
        window.passed += 1
        return True
