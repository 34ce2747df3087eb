"""Files that are whole or not there: written beside their place, brought to the disk, and renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["replace_whole", "sha256_of", "sync_folder", "write_whole"]

_BLOCK_BYTES = 2**20


def write_whole(path: Path, data: bytes, staging: Path) -> None:
    """Write a file so that it is seen whole or not at all, and is still there after a power cut.

    Args:
        path: where it is to be; its folder is made.
        data: what it holds.
        staging: a folder on the same file system where it may lie half-written.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    replace_whole(path, data, staging, durably=True)
    sync_folder(path.parent)


def replace_whole(path: Path, data: bytes, staging: Path, *, durably: bool) -> None:
    """Write a file beside its place and rename it; without `durably` a power cut, unlike a crash, may still tear it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = staging / f"{path.name}.part"
    try:
        with part.open("wb") as file:
            file.write(data)
            if durably:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> tuple[str, int]:
    """Digest a file in flat memory.

    Returns:
        (hexadecimal digest, bytes)

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
