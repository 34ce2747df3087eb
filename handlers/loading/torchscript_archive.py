"""TorchScript, looked at before torch reads it: whether its code computes, or reaches for files.

Torch's reader runs no Python, but TorchScript has operators of its own that write and read any file, and a class may
call them as soon as it is read (`__setstate__`). Its code lies in the archive as text that is Python by syntax, so
those operators can be found by name before anything runs; a name that is put together is refused, too.

Source: torch/csrc/jit/serialization/import.cpp (which members are code), the schemas of aten (which operators take a
file name).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["FILE_OPERATORS", "check_torchscript_archive"]

FILE_OPERATORS = ("save", "from_file")
"""Operators of aten that open a file."""

_LEGACY = "model.json"  # of torch before 1.4: its code may be any member
_PLAIN_NAME = re.compile(r"""(["'])[\w.]*\1""")


def check_torchscript_archive(file: Path) -> None:
    """Make sure that neither reading nor running a program opens a file.

    Raises:
        ValueError: its code names such an operator, or is not what torch writes.
        RuntimeError: torch cannot read it.
    """
    reader = torch._C.PyTorchFileReader(str(file))  # the very reader that torch.jit.load will use
    names = reader.get_all_records()
    folded = [name.lower() for name in names]  # the reader finds members whatever their case
    if len(set(folded)) != len(folded):
        raise ValueError(_refusal(file, "two members of one name"))
    if _LEGACY in folded:
        raise ValueError(_refusal(file, f"{_LEGACY}, the format before torch 1.4"))
    for name in names:
        if name.lower().endswith(".py"):
            for wrong in _find_strangers(reader.get_record(name)):
                raise ValueError(_refusal(file, f"{wrong} in {name}"))


def _find_strangers(code: bytes) -> Iterator[str]:
    try:
        text = code.decode()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "code that cannot be looked at"
        return
    asked = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in FILE_OPERATORS:
            yield f"{ast.unparse(node)}, which opens files,"
        elif name == "getattr" and id(node) not in asked:
            yield "getattr under another name"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from _find_strange_name(text, node)


def _find_strange_name(text: str, call: ast.Call) -> Iterator[str]:
    """Look at what getattr asks for: torch writes one plain word, and TorchScript would put pieces together."""
    written = (ast.get_source_segment(text, call.args[1]) or "") if len(call.args) > 1 else ""
    if not _PLAIN_NAME.fullmatch(written) or written[1:-1] in FILE_OPERATORS:
        yield f"getattr of {written[:60] or 'nothing'}"


def _refusal(file: Path, what: str) -> str:
    remedy = "save a program that only computes, or serve it as family module with its weights"
    return f"{file.name} holds {what} so it is not read; {remedy}"
