"""Errors of items, of models and of torch: describe them, classify them, and exit when a process is unusable.

Torch reports most causes by the text of a RuntimeError, so those texts are kept in this one place.
"""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

import torch

__all__ = ["ItemError", "describe_error", "exit_process", "is_device_lost", "is_out_of_memory"]

_LOG = logging.getLogger(__name__)
_CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "could not create a memory")
_DEVICE_LOST = (
    "CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_MAPPING_ERROR", "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR", "device-side assert",
)  # fmt: skip
_TORCHSCRIPT = "failed in the TorchScript interpreter"
_MAX_CHARACTERS = 300  # of an error's message


class ItemError(Exception):
    """An item of a call has no values. The message says why, and what to change.

    Attributes:
        reason: UPPER_SNAKE_CASE, for programs; `handlers.worker.replies` has the status code of each.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def describe_error(error: BaseException, file: Path | None = None) -> str:
    """Describe an error in one line.

    Args:
        error: any exception.
        file: the custom source file; its last line in the traceback is named.

    Returns:
        Like "ValueError: wrong size (generator.py, line 12)".
    """
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    if _TORCHSCRIPT in text:  # the message ends with the error, after TorchScript's own traceback
        text = text.strip().splitlines()[-1].removeprefix(f"{type(error).__name__}: ")
    message = " ".join(text.split())
    message = message if len(message) <= _MAX_CHARACTERS else f"{message[: _MAX_CHARACTERS - 3]}..."
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file) and error.lineno:
        lines.append(error.lineno)
    place = f" ({file.name}, line {lines[-1]})" if file and lines else ""
    return f"{type(error).__name__}{f': {message}' if message else ''}{place}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory of the host or the device ran out; later or smaller work may succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Return whether this process can no longer use its CUDA device."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(text in str(error) for text in _DEVICE_LOST)


def exit_process(reason: str) -> None:
    """Exit at once, without waiting for threads or finalisers; TorchServe starts a new process, with backoff.

    Args:
        reason: for the log.
    """
    _LOG.critical("%s; exiting, so that a new worker is started", reason)
    logging.shutdown()
    os._exit(1)
