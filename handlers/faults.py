"""Faults of code that others wrote, told in one line: what was raised, what it said, and the line it came from."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["tell_fault"]

_LONGEST = 300  # characters of a message
_TORCHSCRIPT = "failed in the TorchScript interpreter"


def tell_fault(error: BaseException, file: Path | None = None) -> str:
    """Tell an error in one line.

    Args:
        error: what was raised.
        file: the author's file; the last line of it that ran is named.

    Returns:
        Like "ValueError: wrong size (generator.py, line 12)".
    """
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    if _TORCHSCRIPT in text:
        text = text.strip().splitlines()[-1]  # after the whole of its own traceback
        text = text.removeprefix(f"{type(error).__name__}: ")
    said = " ".join(text.split())
    said = said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."
    line = None if file is None else _line_of(error, file)
    place = "" if line is None or file is None else f" ({file.name}, line {line})"
    return f"{type(error).__name__}{f': {said}' if said else ''}{place}"


def _line_of(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
