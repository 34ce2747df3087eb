"""The folder of one TorchServe: its own, short enough for its sockets, and removed even when its owner was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from service.errors import SetupError

__all__ = ["FOLDER_CHARACTERS", "make_folder"]

FOLDER_CHARACTERS = 85
"""The longest path: a socket's path has 107, and TorchServe's are within."""

_FOLDER_PREFIX, _OWNER_FILE = "fount-", "owner"


def make_folder() -> Path:
    """A temporary folder of its own for a TorchServe, with a path short enough for sockets.

    Raises:
        SetupError: none can be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
        if len(str(folder)) > FOLDER_CHARACTERS:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/tmp"))  # a private folder within it
    except OSError as error:
        raise SetupError(f"no temporary folder can be made: {error}; name a writable one with TMPDIR") from error
    _remove_orphans(folder.parent)
    (folder / _OWNER_FILE).write_text(f"{os.getpid()} {psutil.Process().create_time()}")
    return folder


def _remove_orphans(parent: Path) -> None:
    """Remove the folders of processes that were killed and could not do it themselves; they hold tokens."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        try:
            pid, began = (folder / _OWNER_FILE).read_text().split()
            alive = psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).create_time() == float(began)
        except (OSError, ValueError, psutil.Error):
            continue  # not ours, or being made or removed just now
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)
