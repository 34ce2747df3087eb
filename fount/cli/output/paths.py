"""Check where a command will write, before anything is requested: what cannot be written is an `OutputError`."""

from __future__ import annotations

import os
from pathlib import Path

from fount.errors import OutputError, output_errors

__all__ = ["check_output_file", "check_output_folder"]


def check_output_file(path: Path) -> None:
    """Check that a file can be written, over an existing one where there is one."""
    with output_errors(path):  # also of the checks themselves: a name may be too long
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder")
        _check_parent(path)


def check_output_folder(path: Path) -> None:
    """Check that files can be written into a folder, which need not exist."""
    with output_errors(path):
        if path.is_dir():
            _check_permission(path, path)
        elif os.path.lexists(path):
            raise OutputError(f"{path} is a file, or a link that leads nowhere; name a folder")
        else:
            _check_parent(path)


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}")
    _check_permission(path, path.parent)


def _check_permission(path: Path, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no permission to write in {folder}")
