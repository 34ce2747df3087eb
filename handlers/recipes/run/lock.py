"""One process a run folder: two that trained in one would each delete the other's checkpoints."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handlers.recipes.run.checkpoints import CheckpointError

__all__ = ["alone_in"]

_FILE = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made when absent; the system lets go of it when the process ends, however it ends.

    Raises:
        CheckpointError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / _FILE).open("a")
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); name another folder by --run") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another process trains in {folder}; wait for it, end it, or name another folder by --run"
            ) from error
        yield
