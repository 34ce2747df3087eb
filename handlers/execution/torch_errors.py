"""What torch's errors mean: out of memory, or a device that is lost; and the way out when only a new process can go on.

Torch tells most of it by the text of a RuntimeError, so the texts are kept in this one place.
"""

from __future__ import annotations

import logging
import os

import torch

__all__ = ["is_device_lost", "is_out_of_memory", "leave_process"]

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
