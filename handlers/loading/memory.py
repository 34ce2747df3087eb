"""Memory of a worker process: check that weights fit before they are loaded, and keep what batches free.

A process that runs out of memory is killed without a message and restarted forever; one that checks first stays up and
can report why. Where memory cannot be read (see `fount.machine`), everything is accepted.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

from fount.machine import available_bytes

__all__ = ["InsufficientMemoryError", "keep_freed_memory", "require_memory"]

_LOG = logging.getLogger(__name__)
_COPIES = 2  # while loading: the module's own tensors, and those of the file
_MEBIBYTE = 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
_KEPT_BYTES = 2**30
_LARGEST_BYTES = (2**30, 32 * 2**20)  # of a block that is kept; older versions of glibc accept 32 MiB at most


class InsufficientMemoryError(Exception):
    """A model does not fit into memory. Use a larger machine, a higher limit, or fewer workers."""


def require_memory(file: Path) -> None:
    """Check that there is enough memory to load a weights file.

    Raises:
        InsufficientMemoryError: there is not; the message has both sizes.
    """
    available = available_bytes()
    needed = _COPIES * (file.stat().st_size if file.is_file() else 0)
    if available is not None and needed > available:
        sizes = f"needs {_format(needed)} of memory to load, {_format(available)} are free"
        raise InsufficientMemoryError(
            f"{file.name} {sizes}; use a machine or a limit with more memory, or fewer workers"
        )


def keep_freed_memory() -> bool:
    """Make the allocator of this process keep up to 1 GiB of freed memory for the next batch.

    By default glibc maps large blocks anew for every batch, and the system zeroes each page on first touch: a fifth to
    a third of the time of a convolutional batch of 32 rows or more where this was measured. A worker runs the same few
    shapes for its whole life, so what it keeps does not grow. All threads share one arena: calls run in several, of
    which each would otherwise keep memory of its own, and release it in spite of the threshold.

    Returns:
        Whether the setting took effect; when it is not supported, a line is logged.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError) as error:  # another C library, or another system
        _LOG.info("the allocator does not support keeping freed memory (%s); large batches may be slower", error)
        return False
    is_kept = bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_ARENA_MAX, 1))
    return is_kept and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BYTES)


def _format(size: int) -> str:
    return f"{size / _MEBIBYTE:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.0f} GiB"
