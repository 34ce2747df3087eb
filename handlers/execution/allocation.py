"""Memory that a batch gave back is kept for the next one, instead of being returned to the system and fetched again.

glibc maps large blocks afresh for every batch, and the system zeroes each page when it is first touched. On the machine
this was measured on, that was a fifth to a third of the time of a convolutional batch of 32 rows or more. A worker runs
the same few shapes for its whole life, so what it holds does not grow. Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import logging

__all__ = ["keep_freed_memory"]

_LOG = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_LARGEST_BYTES = (2**30, 32 * 2**20)  # of a block that is kept; older versions of glibc take no more than 32 MiB


def keep_freed_memory() -> bool:
    """Tell the allocator of this process to keep what is freed, up to 1 GiB.

    Returns:
        Whether it will; False, with a line in the log, where the allocator has no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError) as error:  # another C library, or another system
        _LOG.info("the allocator cannot be told to keep freed memory (%s); large batches may be slower", error)
        return False
    is_kept = bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
    return is_kept and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BYTES)
