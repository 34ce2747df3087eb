"""Read YAML text into plain values, and write it: the only parser of YAML documents.

Text becomes dictionaries, lists, text, numbers, truth values and None, which `fount.documents.parse` checks. Values
without quotes are read by the core schema of YAML 1.2, without leading zeros: `no`, `1:30`, `010` and dates are text.
Keys are text always; and where a schema expects text, a value is the text as written: `version: 1.10` is "1.10".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fount.documents import DocumentError, Problem, path_of
from fount.files import open_regular

__all__ = ["dump_yaml", "load_yaml", "read_yaml"]

_MAX_DEPTH = 64  # lists and mappings within each other
_MAX_VALUES = 2**18  # keys, values, lists and mappings of a document
_MAX_DIGITS = 256  # of a number; the largest float has 309
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is twenty times as fast
_CONSTANTS = {"": None, "~": None} | {
    form: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for form in (word, word.title(), word.upper())
}
_WHOLE = re.compile(r"(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


def read_yaml(file: Path, max_bytes: int = 2**20, *, pipes: bool = False) -> Any:
    """Read a YAML file into plain values; see `load_yaml`.

    Args:
        file: a regular file.
        max_bytes: its largest size.
        pipes: whether it may also be a pipe, for whose writer this waits.

    Raises:
        DocumentError: it is larger than max_bytes, or `load_yaml` refuses it.
        OSError: it cannot be read.
    """
    with file.open("rb") if pipes and file.is_fifo() else open_regular(file) as stream:
        text = stream.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise DocumentError([Problem(key="", wrong=f"is larger than {max_bytes} bytes", remedy="name another file")])
    return load_yaml(text)


def load_yaml(text: str | bytes) -> Any:
    """Read a YAML document into plain values; an empty one is None. Time and memory grow with its size alone.

    Raises:
        DocumentError: it is not YAML, has too many values or levels, an anchor, an alias or a tag, or a key twice.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        first, last = (mark.line + 1 if mark else 0 for mark in (error.context_mark, error.problem_mark))
        begin = f" {error.context} that begins on line {first}" if 0 < first < last else ""
        raise _refusal(f"is not YAML at line {last}: {error.problem}{begin}", "correct this place") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise _refusal(f"is not YAML: {' '.join(str(error).split())[:300]}", "write text in UTF-8") from error
    if builder.repeated:
        raise DocumentError(builder.repeated)
    return builder.value


def dump_yaml(value: object, *, flow: bool | None = None, width: int = 120) -> str:
    """Write plain values as YAML that `load_yaml`, and readers of YAML 1.1, read as equal values.

    Args:
        value: dictionaries, lists, text, numbers, truth values and None.
        flow: write collections in brackets; None: those that contain no other.
        width: of a line, in characters.
    """
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow
    )  # fmt: skip


class _Mapping(dict[Any, Any]):
    """A mapping of a YAML document; `written` has the text of values that are numbers or truth values, by key."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Any, str] = {}


class _Sequence(list[Any]):
    """A list of a YAML document; `written` is as in `_Mapping`, by position."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Any, str] = {}


@dataclass(kw_only=True)
class _Open:
    """A collection being read: its path, the line of each of its keys, and the key whose value comes next."""

    values: _Mapping | _Sequence
    path: tuple[int | str, ...]
    lines: dict[str, int]
    key: str | None = None

    def step(self) -> int | str:
        """Return the place of the next value in the collection."""
        return len(self.values) if isinstance(self.values, _Sequence) else self.key or ""


class _Builder:
    """Builds plain values from the events of a YAML parser.

    Attributes:
        value: the document, when all events have been taken.
        repeated: a problem for each key that occurs again.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.repeated: list[Problem] = []
        self._open: list[_Open] = []
        self._documents = self._values = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event; a DocumentError says what is not accepted, and on which line."""
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _refusal(f"has a second document on line {line}", "keep one in a file")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise _refusal(f"has a YAML alias (*) on line {line}", "write the value out")
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.anchor is not None:
                raise _refusal(f"has a YAML anchor (&) on line {line}", "leave it out, and write values out")
            if event.tag is not None:
                raise _refusal(f"has a YAML tag (!) on line {line}", "leave it out; put text in quotes")
            self._take_node(event, line)

    def _take_node(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise _refusal(f"has more than {_MAX_VALUES} keys and values by line {line}", "write a shorter document")
        parent = self._open[-1] if self._open else None
        is_key = parent is not None and isinstance(parent.values, _Mapping) and parent.key is None
        if isinstance(event, yaml.ScalarEvent):
            if parent is not None and is_key:
                self._take_key(parent, event.value, line)
                return
            value = _plain_value(event.value) if event.implicit[0] else event.value
            if parent is not None and type(value) in (bool, int, float):
                parent.values.written[parent.step()] = event.value
            self._add(parent, value)
            return
        if is_key:
            raise _refusal(f"has a key on line {line} that is a list or a mapping", "keys are text")
        if len(self._open) == _MAX_DEPTH:
            raise _refusal(f"is nested more than {_MAX_DEPTH} deep on line {line}", "write fewer levels")
        path = (*parent.path, parent.step()) if parent is not None else ()
        values = _Mapping() if isinstance(event, yaml.MappingStartEvent) else _Sequence()
        self._add(parent, values)
        self._open.append(_Open(values=values, path=path, lines={}))

    def _take_key(self, mapping: _Open, key: str, line: int) -> None:
        first = mapping.lines.setdefault(key, line)
        if key in mapping.values:
            where = f"twice on line {line}" if first == line else f"on lines {first} and {line}"
            path = path_of((*mapping.path, key))
            self.repeated.append(Problem(key=path, wrong=f"occurs {where}", remedy="keep one of them"))
        mapping.key = key

    def _add(self, parent: _Open | None, value: object) -> None:
        if parent is None:
            self.value = value
        elif isinstance(parent.values, _Sequence):
            parent.values.append(value)
        else:
            parent.values[parent.step()] = value
            parent.key = None


def _plain_value(text: str) -> object:
    """Read a scalar without quotes; numbers that no float can hold stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= _MAX_DIGITS:
        if _WHOLE.match(text):
            return int(text, 0)
        if _REAL.match(text) and math.isfinite(number := float(text)):
            return number
    return text


def _refusal(wrong: str, remedy: str) -> DocumentError:
    return DocumentError([Problem(key="", wrong=wrong, remedy=remedy)])


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type, and writes repeated values out."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _REAL, list("-+.0123456789"))
