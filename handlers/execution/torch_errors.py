"""What torch's errors mean: out of memory, or a device that is lost; and the way out when only a new process can go on.

Torch tells most of it by the text of a RuntimeError, so the texts are kept in this one place.
"""

from __future__ import annotations

import ctypes
import logging
import os

import torch

__all__ = ["is_device_lost", "is_out_of_memory", "keep_freed_memory", "leave_process"]


_LOG = logging.getLogger(__name__)
_CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "could not create a memory")
_LOST = (
    "CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_MAPPING_ERROR", "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR", "device-side assert",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or the device ran out; later and smaller work may succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the process can never use its CUDA device again; only a new process can."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(text in str(error) for text in _LOST)


def leave_process(why: str) -> None:
    """Make way for a new process, which TorchServe starts, later each time; threads and finalisers are not waited for.

    Args:
        why: for the log, the start of a sentence.
    """
    _LOG.critical("%s; leaving, so that a new worker is started", why)
    logging.shutdown()
    os._exit(1)


# FOLDED FROM handlers.execution.torch_errors:
# Memory that a batch gave back is kept for the next one, instead of being returned to the system and fetched
# again. glibc maps large blocks afresh for every batch, and the system zeroes each page when it is first
# touched. On the machine this was measured on, that was a fifth to a third of the time of a convolutional batch
# of 32 rows or more. A worker runs the same few shapes for its whole life, so what it holds does not grow.
# Source: mallopt(3).


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
