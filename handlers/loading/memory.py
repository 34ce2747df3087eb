"""Memory of a worker process: check that weights fit before they are loaded, and keep what batches free.

A process that runs out of memory is killed without a message and restarted forever; one that checks first stays up and
can report why. The check reads Linux's /proc and control groups; on other systems it accepts everything.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

__all__ = ["InsufficientMemoryError", "available_bytes", "keep_freed_memory", "require_memory"]

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


def available_bytes(root: Path = Path("/")) -> int | None:
    """Read how much memory this process can still use: free memory of the machine and of its control group.

    Args:
        root: the folder with `proc` and `sys`.

    Returns:
        Bytes, the smaller of both; None when neither can be read.
    """
    machine = _read_pairs(root / "proc/meminfo").get("MemAvailable:")
    limits = [None if machine is None else machine * 1024, _available_in_group(root)]
    return min((limit for limit in limits if limit is not None), default=None)


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


def _available_in_group(root: Path) -> int | None:
    """Read the control group, version 2 or 1; the page cache can be reclaimed, so it counts as free."""
    group = root / "sys/fs/cgroup"
    for folder, limit, used, cached in (
        (group, "memory.max", "memory.current", "inactive_file"),
        (group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _read_number(folder / limit), _read_number(folder / used)
        if most is not None and now is not None:
            return max(0, most - now + _read_pairs(folder / "memory.stat").get(cached, 0))
    return None


def _read_number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" means no limit


def _read_pairs(file: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()}


def _format(size: int) -> str:
    return f"{size / _MEBIBYTE:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.0f} GiB"
