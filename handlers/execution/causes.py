"""Find the cause in a long text: in an error that torch wraps, or in what a process printed before it ended.

Such texts end with anything but the cause: with source code, the rest of a message, or a list of kernels. A text
enters; the one error that explains it leaves. Nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["Cause", "find_in_output", "find_in_torchscript", "find_missing_device"]

_TRACEBACK = "Traceback (most recent call last):"
_HERE = re.compile(r"\s*~+ <--- HERE\s*")  # below the code that failed; the last one is of the innermost call
_FRAME = re.compile(r'\s*File "([^"]*)", line (\d+)')
_ERROR = re.compile(r"((?:\w+\.)*\w+)(?:: (.*))?")  # "builtins.ValueError: message", at the start of a line
_MISSING = re.compile(
    "with arguments from the '(CUDA|XPU|MPS)' backend|not compiled with (CUDA|XPU) enabled"
    "|not linked with support for (mps) devices|Cannot get (CUDA) generator|No (CUDA) GPUs are available"
    "|Found no NVIDIA driver"
)
_MAX_CODE = 100  # characters of the code that failed
_MAX_CHARACTERS = 300  # of an error that a process printed


@dataclass(frozen=True, kw_only=True)
class Cause:
    """An error inside of a text.

    Attributes:
        kind: its class, without the module.
        message: its text, which may have several lines.
        place: the file, line and code that raised it; "" when the text does not say.
    """

    kind: str
    message: str
    place: str = ""


def find_in_torchscript(text: str) -> Cause | None:
    """Find the cause in an error of TorchScript's interpreter: the error follows two tracebacks with source code."""
    lines = text.splitlines()
    if not (marks := [i for i, line in enumerate(lines) if _HERE.fullmatch(line)]):
        return None
    mark = marks[-1]
    place = ""
    if frames := [found for line in lines[:mark] if (found := _FRAME.match(line))]:
        place = f"{PurePath(frames[-1][1]).name}, line {frames[-1][2]}: {lines[mark - 1].strip()[:_MAX_CODE]}"
    for i, line in enumerate(lines[mark + 1 :], mark + 1):
        if (found := _ERROR.match(line)) and found[2] is not None:
            message = "\n".join([found[2], *lines[i + 1 :]])
            return Cause(kind=found[1].rpartition(".")[2], message=message, place=place)
    return None


def find_in_output(printed: str) -> str:
    """Find the error that ended a Python process, in one line: that of its last traceback, or else the last line."""
    _, traceback, after = printed.rpartition(_TRACEBACK)
    lines = [line for line in after.splitlines() if line.strip()]
    if not traceback or not lines:
        return lines[-1].strip() if lines else ""
    start = next((i for i, line in enumerate(lines) if not line[0].isspace() and _ERROR.match(line)), len(lines) - 1)
    text = "\n".join(lines[start:])
    if found := find_in_torchscript(text):
        text = f"{found.kind}: {found.message} ({found.place})"
    return " ".join(text.split())[:_MAX_CHARACTERS]


def find_missing_device(text: str) -> str:
    """Find the device of tensors that torch could not create, like "cuda"; "" when the text is about something else."""
    found = _MISSING.search(text)
    return (found[found.lastindex].lower() if found.lastindex else "cuda") if found else ""
