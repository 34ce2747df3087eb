"""The workers of one TorchServe that serve gRPC themselves: a file `<pid>.address` each, in a folder they share.

A worker's address enters after it was bound; the addresses of all live workers leave, for descriptions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fount.files import atomic_write

__all__ = ["read_addresses", "register"]

_SUFFIX = ".address"


def register(folder: Path, address: str) -> None:
    """Register this process, and remove what processes that ended have left.

    Args:
        folder: of the registry.
        address: "unix:" and the path of a socket, or ":" and a TCP port.
    """
    for file in folder.iterdir():
        pid = _pid_of(file)
        if pid is not None and not _is_alive(pid):
            file.unlink(missing_ok=True)
    atomic_write(folder / f"{os.getpid()}{_SUFFIX}", address.encode(), durable=False)


def read_addresses(folder: Path) -> dict[int, str]:
    """Read the addresses of the processes that are alive, by process id, ascending."""
    return dict(sorted(_read(folder)))


def _read(folder: Path) -> Iterator[tuple[int, str]]:
    for file in folder.glob(f"*{_SUFFIX}"):
        pid = _pid_of(file)
        if pid is None or not _is_alive(pid):
            continue
        try:
            yield pid, file.read_text(encoding="utf-8")
        except FileNotFoundError:  # removed since it was listed
            continue


def _pid_of(file: Path) -> int | None:
    """The process that a file belongs to; None for a file of something else."""
    stem = file.name.removesuffix(_SUFFIX).removesuffix(".sock")
    return int(stem) if stem != file.name and stem.isascii() and stem.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
