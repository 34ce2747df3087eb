"""Files that are there whole or not at all, whenever the process or the machine ends: written beside, then renamed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PART_SUFFIX", "write_whole"]

PART_SUFFIX = ".part"
"""Ends the name of what was never finished; it may be deleted."""


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, replacing one of its name; when this returns, it outlasts a loss of power.

    Args:
        file: in a folder that is there; one process writes it at a time.
        content: all of it.

    Raises:
        OSError: it could not be written; the file is as it was.
    """
    part = file.with_name(file.name + PART_SUFFIX)
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name last, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
