"""Read a checkpoint of torch.save, and run no code of it: what is not a tensor or a plain value becomes a placeholder.

A checkpoint is a pickle, which names classes and functions to call. Torch's weights-only reader calls none but its own.
Here every other name stands for a class that ignores what it gets, so a `Namespace` of arguments or a NumPy scalar next
to the weights does no harm; nothing is imported. Names that occur only in files made to run code are refused.

Source: torch._weights_only_unpickler (which instructions of a pickle it follows).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Node", "Placeholder", "UnsafeCheckpointError", "count_tensors", "read_checkpoint", "walk"]

_UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed global by default")
_BLOCKED = re.compile(r"unsupported GLOBAL (\S+) whose module")
_MAX_NAMES = 100  # of one checkpoint
_MAX_DEPTH, _MAX_NODES = 50, 1_000_000
_PLAIN_BUILTIN = re.compile("bool|bytes|dict|float|frozenset|int|list|object|range|slice|str|tuple")
_RUNS_CODE = re.compile(  # commands is subprocess of Python 2, whose names torch.save writes
    r"(os|posix|nt|sys|subprocess|commands|_?io|shutil|socket|importlib|runpy|ctypes|code|codeop|pty|platform|webbrowser"
    r"|pickle|marshal|operator|timeit|pdb|asyncio|multiprocessing|urllib|http|torch\.hub|torch\.serialization)\..*"
    r"|types\.(Code|Function)Type"
)


class UnsafeCheckpointError(Exception):
    """A checkpoint would run code if it were read as it was written. The message lists what it would call."""


class Placeholder:
    """Stands for an object of a class that is not read; ignores every argument and state, and keeps them.

    Attributes:
        kind: the name of the class, or of the function that would have made it.
        content: what the object was made from.
    """

    kind = ""
    content: list[object]

    def __new__(cls, *content: object) -> Placeholder:
        """Keep what the pickle passes; called instead of the class that it names."""
        made = super().__new__(cls)
        made.content = list(content)
        return made

    def __init__(self, *content: object) -> None:
        """Do nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        self.content.append(state)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A mapping or a placeholder in a checkpoint; its path has the keys and positions that lead to it."""

    path: tuple[str, ...]
    value: Mapping[Any, Any] | Placeholder


def read_checkpoint(load: Callable[[], object]) -> object:
    """Read a checkpoint with placeholders.

    Args:
        load: calls torch.load with `weights_only`; called again for each name that needs a placeholder.

    Raises:
        UnsafeCheckpointError: it names something that runs code, or too many different things.
        pickle.UnpicklingError: torch refuses its instructions.
        Exception: of many kinds, when it is damaged.
    """
    known: dict[str, object] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(value, name) for name, value in known.items()]):  # type: ignore[misc]
                return load()
        except pickle.UnpicklingError as error:
            if blocked := _BLOCKED.search(str(error)):
                raise UnsafeCheckpointError(blocked[1]) from error
            if not (unknown := _UNKNOWN.search(str(error))):
                raise
            name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
            if name in known or not _is_harmless(name) or len(known) == _MAX_NAMES:
                raise UnsafeCheckpointError(unknown[1]) from error
            known[name] = _replacement(name)


def walk(value: object) -> Iterator[Node]:
    """Yield every mapping and placeholder that string keys and positions lead to, outer ones first.

    Raises:
        ValueError: there are too many, as in a file that contains itself in several places.
    """
    visited = 0
    waiting: list[tuple[tuple[str, ...], object]] = [((), value)]
    while waiting:
        path, found = waiting.pop()
        visited += 1
        if visited > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        inner: list[tuple[tuple[str, ...], object]] = []
        if isinstance(found, Mapping):
            inner = [((*path, key), item) for key, item in found.items() if isinstance(key, str)]
        elif isinstance(found, list | tuple):
            inner = [((*path, str(i)), item) for i, item in enumerate(found)]
        if isinstance(found, Mapping | Placeholder):
            yield Node(path=path, value=found)
        waiting += [each for each in reversed(inner) if isinstance(each[1], Mapping | Placeholder | list | tuple)]


def count_tensors(placeholder: Placeholder) -> int:
    """Count the tensors that the object of a placeholder held, at any depth."""
    count, seen = 0, set[int]()
    waiting: list[Any] = [placeholder]
    while waiting:
        found = waiting.pop()
        count += isinstance(found, Tensor)
        if id(found) in seen or not isinstance(found, Placeholder | Mapping | list | tuple | set):
            continue
        seen.add(id(found))
        items = found.content if isinstance(found, Placeholder) else found
        waiting += items.values() if isinstance(items, Mapping) else items
    return count


def _is_harmless(name: str) -> bool:
    module, _, builtin = name.partition(".")
    return bool(_PLAIN_BUILTIN.fullmatch(builtin)) if module == "builtins" else not _RUNS_CODE.fullmatch(name)


def _replacement(name: str) -> object:
    """Make what stands for a class or function; torch fills only plain mappings and lists item by item."""
    if name == "collections.defaultdict":
        return _make_dict
    if name == "collections.deque":
        return _make_list
    return type(name.rpartition(".")[2], (Placeholder,), {"kind": name})


def _make_dict(*_arguments: object) -> dict[object, object]:
    return {}


def _make_list(*_arguments: object) -> list[object]:
    return []
