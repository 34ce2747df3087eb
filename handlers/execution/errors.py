"""Errors of items, of models and of torch: describe them, classify them, and exit when a process is unusable.

Torch reports most causes by the text of a RuntimeError, so those texts are kept in this one place.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import traceback
from pathlib import Path

import torch

from handlers.execution.causes import Cause, find_in_torchscript, find_missing_device

__all__ = [
    "ItemError", "cause_of", "describe_error", "exit_process", "is_device_lost", "is_out_of_memory", "remedy_for",
]  # fmt: skip

_LOG = logging.getLogger(__name__)
_CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "could not create a memory")
_DEVICE_LOST = (
    "CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_MAPPING_ERROR", "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR", "device-side assert",
)  # fmt: skip
_TWO_DEVICES = "tensors to be on the same device"
_GENERATED = "<eval_with_key>"  # the file name of the code that torch makes from an exported program
_MAX_CODE = 100  # characters of it
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
    cause = cause_of(error)
    message = " ".join(cause.message.split())
    message = message if len(message) <= _MAX_CHARACTERS else f"{message[: _MAX_CHARACTERS - 3]}..."
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file) and error.lineno:
        lines.append(error.lineno)
    place = cause.place or (f"{file.name}, line {lines[-1]}" if file and lines else "")
    if not place and (code := [frame.line for frame in frames if frame.filename.startswith(_GENERATED) and frame.line]):
        place = code[-1][:_MAX_CODE]
    return f"{cause.kind}{f': {message}' if message else ''}{f' ({place})' if place else ''}"


def cause_of(error: BaseException) -> Cause:
    """Find the cause of an error, which torch may wrap in tracebacks or describe by what follows from it."""
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    cause = find_in_torchscript(text) or Cause(kind=type(error).__name__, message=text)
    if device := _missing_device(error):
        return dataclasses.replace(cause, message=f"it creates tensors on {device}, which this machine does not have")
    return cause


def remedy_for(error: BaseException, otherwise: str, *, is_program: bool = False) -> str:
    """Advise what to change after an error of a model's code.

    Args:
        error: any exception.
        otherwise: the advice unless the error has a remedy of its own.
        is_program: whether the model is a program, which has to be saved again.
    """
    if not _missing_device(error) and _TWO_DEVICES not in str(error):
        return otherwise
    rule = "create tensors on the device of z (device=z.device), and register constants as buffers"
    again = ", then save the program again from the module on the CPU, after module.cpu()" if is_program else ""
    return f"{rule}{again}"


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


def _missing_device(error: BaseException) -> str:
    """Name the device whose absence from this machine caused an error, like "cuda"; "" for any other error."""
    device = find_missing_device(str(error))
    return "" if device == "cuda" and torch.cuda.is_available() else device


def exit_process(reason: str) -> None:
    """Exit at once, without waiting for threads or finalisers; TorchServe starts a new process, with backoff.

    Args:
        reason: for the log.
    """
    _LOG.critical("%s; exiting, so that a new worker is started", reason)
    logging.shutdown()
    os._exit(1)
