"""Plain values, as YAML gives them, read key by key; problems are gathered under their paths, none is raised at once.

Enters: a mapping and the keys it may have. Leaves: texts, numbers and nested readers, with neutral values where
something is wrong, and one `InvalidRequest` that names everything.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from fount.errors import InvalidRequest

__all__ = ["Reader"]

_Choice = TypeVar("_Choice")
_Problems = list[tuple[str, str]]


class Reader:
    """One mapping of a file, and what is wrong within it. A key that is null is as good as left out."""

    def __init__(
        self, values: object, known: Sequence[str], *, required: Sequence[str], path: str, problems: _Problems
    ) -> None:
        self._path, self._problems = path, problems
        self._values: Mapping[Any, Any] = values if isinstance(values, Mapping) else {}
        if not isinstance(values, Mapping):
            self.wrong("", f"is {values!r}; write a mapping of {', '.join(known)}")
            return
        for key in values:
            if key not in known:
                self.wrong(str(key), f"is not known; {_meant(str(key), known)}")
        for key in required:
            if key not in self:
                self.wrong(key, "is missing")

    @classmethod
    def of(cls, values: object, known: Sequence[str], *, required: Sequence[str] = ()) -> Reader:
        """Read a whole file."""
        return cls(values, known, required=required, path="", problems=[])

    def __contains__(self, key: object) -> bool:
        return self._values.get(key) is not None

    def wrong(self, key: str, text: str) -> None:
        """Note what is wrong with a key of this mapping; with "", with the mapping itself."""
        self._problems.append((".".join(part for part in (self._path, key) if part) or "(the whole)", text))

    def finish(self, message: str) -> None:
        """Take note that everything was read.

        Raises:
            InvalidRequest: something was wrong; every problem is named.
        """
        if self._problems:
            raise InvalidRequest(message, fields=self._problems)

    def value(self, key: str) -> Any:
        """What stands there, as it is."""
        return self._values.get(key)

    def text(self, key: str) -> str:
        """A text; "" when it is left out."""
        value = self.value(key)
        if value is None or isinstance(value, str):
            return value or ""
        self.wrong(key, f"is {value!r}, not a text; put it in quotes")
        return ""

    def flag(self, key: str) -> bool:
        """True or false; false when it is left out."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, f"is {value!r}; write true or false")
        return value is True

    def whole(self, key: str, least: int, most: int) -> int | None:
        """A whole number; None when it is left out, or wrong."""
        return self._whole(key, self.value(key), least, most)

    def real(self, key: str) -> float | None:
        """A finite number; None when it is left out, or wrong."""
        return self._real(key, self.value(key))

    def choice(self, key: str, choices: Mapping[str, _Choice]) -> _Choice | None:
        """One of some words; None when it is left out, or wrong."""
        value = self.value(key)
        if value is None or (isinstance(value, str) and value in choices):
            return None if value is None else choices[value]
        self.wrong(key, f"is {value!r}; {_meant(str(value), tuple(choices))}")
        return None

    def range(self, key: str) -> tuple[float, float]:
        """Two finite numbers, [least, most]; (0, 0) when they are wrong."""
        value = self.value(key)
        if not isinstance(value, list | tuple) or len(value) != 2:
            self.wrong(key, f"is {value!r}; write its range, as [least, most]")
            return 0.0, 0.0
        low, high = (self._real(f"{key}[{i}]", each) for i, each in enumerate(value))
        return low or 0.0, high or 0.0

    def record(self, key: str, known: Sequence[str], *, required: Sequence[str] = ()) -> Reader | None:
        """A mapping within this one; None when it is left out."""
        return self._child(key, self.value(key), known, required) if key in self else None

    def records(self, key: str, known: Sequence[str], *, required: Sequence[str] = ()) -> list[Reader]:
        """A list of mappings; empty when it is left out, or wrong."""
        value = self.value(key)
        if not isinstance(value, list | tuple):
            if value is not None:
                self.wrong(key, f"is {value!r}; write a list")
            return []
        return [self._child(f"{key}[{i}]", each, known, required) for i, each in enumerate(value)]

    def pairs(self, key: str) -> Iterator[str | int]:
        """The keys of a mapping whose keys are names, as of classes; none when it is wrong."""
        value = self.value(key)
        if not isinstance(value, Mapping):
            self.wrong(key, f"is {value!r}; write a mapping from class names")
            return
        for name in value:
            if isinstance(name, bool) or not isinstance(name, str | int):
                self.wrong(f"{key}.{name}", "is no class name; put it in quotes")
            else:
                yield name

    def pair_whole(self, key: str, name: str | int) -> int:
        """The whole number, 0 or more, that stands under a name; 0 when it is wrong."""
        return self._whole(f"{key}.{name}", self.value(key)[name], 0, 2**64 - 1, absent=False) or 0

    def pair_real(self, key: str, name: str | int) -> float:
        """The number that stands under a name; 0 when it is wrong."""
        return self._real(f"{key}.{name}", self.value(key)[name], absent=False) or 0.0

    def _child(self, key: str, value: object, known: Sequence[str], required: Sequence[str]) -> Reader:
        path = f"{self._path}.{key}" if self._path else key
        return Reader(value, known, required=required, path=path, problems=self._problems)

    def _whole(self, key: str, value: object, least: int, most: int, *, absent: bool = True) -> int | None:
        if value is None and absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(key, f"is {value!r}; it is a whole number from {least} to {most}")
            return None
        return value

    def _real(self, key: str, value: object, *, absent: bool = True) -> float | None:
        if value is None and absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            self.wrong(key, f"is {value!r}; it is a finite number")
            return None
        return float(value)


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"it may be {', '.join(known)}"
