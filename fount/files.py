"""Write files atomically, keep them private, and open regular files alone.

A reader sees the whole new file, or what was there before, and never a part: content is written to a temporary file,
synced to disk and renamed into place. Every writer of whole files in Fount uses this module. Files that grow by
appending (journals) call `sync_folder` after they create a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

__all__ = [
    "PART_SUFFIX", "atomic_path", "atomic_write", "check_regular", "make_private_file", "make_private_folder",
    "open_regular", "sha256_of", "sync_folder",
]  # fmt: skip

PART_SUFFIX = ".part"
"""Ends the names of temporary files; one that a crash left behind may be deleted."""

_MAX_PART_CHARACTERS = 48  # of a file's name, of up to 4 bytes each, in the name of its temporary file


@contextmanager
def atomic_path(
    path: Path, *, staging: Path | None = None, durable: bool = True, mode: int = 0o666, overwrite: bool = True
) -> Iterator[Path]:
    """Give a temporary file to write to; when the block ends, rename it to `path`, or remove it on any exception.

    Args:
        path: the final name, in a folder that exists.
        staging: a folder of the same file system for the temporary file; None: the folder of `path`.
        durable: sync the file and its folder, so that the file also survives a power cut.
        mode: permission bits, narrowed by the umask as usual; in force before anything is written.
        overwrite: replace an existing file. False: fail instead, also when another process creates it meanwhile.

    Yields:
        The temporary file, which exists and is empty.

    Raises:
        OSError: the file cannot be written, or is a device or a pipe, and `path` is as it was.
        FileExistsError: `path` exists and `overwrite` is False.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a folder raises a clearer error below
        raise OSError(errno.EINVAL, "it is a device or a pipe, and no file", str(path))
    # Its name is short, since names may have 255 bytes.
    part = (staging or path.parent) / f".{path.name[:_MAX_PART_CHARACTERS]}.{secrets.token_hex(6)}{PART_SUFFIX}"
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield part
        if durable:
            _sync(part, os.O_RDWR)
        if overwrite:
            part.replace(path)
        else:
            os.link(part, path)
        if durable:
            sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def atomic_write(
    path: Path,
    data: bytes,
    *,
    staging: Path | None = None,
    durable: bool = True,
    mode: int = 0o666,
    overwrite: bool = True,
) -> None:
    """Write a whole file from bytes; arguments and errors as in `atomic_path`."""
    with atomic_path(path, staging=staging, durable=durable, mode=mode, overwrite=overwrite) as part:
        part.write_bytes(data)


def make_private_folder(folder: Path) -> str:
    """Create a folder that its owner alone can enter, or take the access of others from an existing one.

    Returns:
        Why others can still enter it; "" when they cannot. A folder for all users, like /tmp, stays as it is.

    Raises:
        OSError: it cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & stat.S_ISVTX:
        return f"{folder} is a folder for all users"
    return _close_to_others(folder, 0o700)


def make_private_file(path: Path) -> str:
    """Create an empty file that its owner alone can read, or take the access of others from an existing one.

    Returns:
        Why others can still read it; "" when they cannot.

    Raises:
        OSError: it cannot be created.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return _close_to_others(path, 0o600)


def _close_to_others(path: Path, mode: int) -> str:
    if path.stat().st_mode & 0o077:
        with suppress(OSError):  # of another user, or of a file system that cannot be written
            path.chmod(mode)
    found = path.stat()
    if not found.st_mode & 0o077:
        return ""
    return f"{path} can be read by other users{'' if found.st_uid == os.getuid() else ' and is not yours'}"


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, where the operating system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def check_regular(path: Path) -> None:
    """Check that a path that a user names is a file: a pipe, a device or a socket may never end, or never begin.

    Raises:
        OSError: it is something else, or does not exist; `strerror` says so.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes; raises as `check_regular` does."""
    check_regular(path)
    return path.open("rb")


def sha256_of(path: Path) -> tuple[str, int]:
    """Compute the digest, 64 hexadecimal digits, and the size of a file in constant memory."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
