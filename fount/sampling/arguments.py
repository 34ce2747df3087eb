"""Check the Python arguments of a client call, and report every wrong value at once.

Wrong types raise `TypeError` immediately; wrong values are collected and raised as one `InvalidRequest`. Only what is
wrong for every server is checked here: what depends on models and data sets is checked by the gateway.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from fount.errors import InvalidRequest

__all__ = ["UINT32_MAX", "UINT64_MAX", "Arguments", "SupportsArray", "array_of", "text_of"]

UINT32_MAX, UINT64_MAX = 2**32 - 1, 2**64 - 1

_Choice = TypeVar("_Choice")


class SupportsArray(Protocol):
    """An array, or a tensor of any library that converts to NumPy."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Convert to a NumPy array."""


class Arguments:
    """The optional keyword arguments of one call; None is the same as leaving an argument out.

    `given` holds the arguments that are not None, `problems` what is wrong with them, as found so far.
    """

    def __init__(self, function: str, query: Mapping[str, Any], known: Container[str], failure: str) -> None:
        """Take the arguments of a function; its error begins with `failure`, as in "The request cannot be sent:".

        Raises:
            TypeError: an argument is unknown.
        """
        if unknown := sorted(name for name in query if name not in known):
            raise TypeError(f"{function}() got an unexpected argument {unknown[0]!r}")
        self.given = {name: value for name, value in query.items() if value is not None}
        self.problems: list[tuple[str, str]] = []
        self._failure = failure

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def add(self, name: str, text: str) -> None:
        """Add a problem."""
        self.problems.append((name, text))

    def finish(self) -> None:
        """Raise the problems, if there are any, as one InvalidRequest."""
        if self.problems:
            raise InvalidRequest(self._failure, fields=self.problems)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Read a whole number from low to high; None when it is not given."""
        return self.whole_of(name, self.given[name], low, high) if name in self.given else None

    def whole_of(self, name: str, value: object, low: int, high: int) -> int:
        """Check a whole number; low stands for one that is out of range."""
        if type(value) is int:  # the protocol's check takes longer than all others of a request
            number = value
        elif isinstance(value, bool) or not isinstance(value, SupportsIndex):
            raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
        else:
            number = operator.index(value)
        if low <= number <= high:
            return number
        limits = f"{low} or more" if number < low and low and high == UINT64_MAX else f"{low} to {high}"
        self.add(name, f"is {number}; it may be {limits}")
        return low

    def real_of(self, name: str, value: object) -> float:
        """Check a number."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        return float(value)

    def real(self, name: str, low: float, high: float) -> float | None:
        """Read a number from low to high; None when it is not given."""
        if name not in self.given:
            return None
        number = self.real_of(name, self.given[name])
        if not low <= number <= high:  # NaN as well
            self.add(name, f"is {number:g}; it may be {low:g} to {high:g}")
        return number

    def flag(self, name: str) -> bool:
        """Read True or False; False when it is not given."""
        value = self.given.get(name, False)
        if not isinstance(value, bool | np.bool):
            raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
        return bool(value)

    def text(self, name: str) -> str:
        """Read a text; empty when it is not given."""
        return text_of(name, self.given.get(name, ""))

    def texts(self, name: str) -> list[str]:
        """Read texts; none when they are not given."""
        values = self.given.get(name, ())
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise TypeError(f"{name} must be a sequence of str, got {type(values).__name__}")
        return [text_of(name, each) for each in values]

    def utf8_of(self, name: str, text: str) -> bytes:
        """Encode a text; a problem is added for half of a surrogate pair, which has no encoding."""
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            self.add(name, f"holds {text[error.start]!r}, which is no character; give valid Unicode")
            return b""

    def choice(self, name: str, choices: Mapping[str, _Choice], default: str) -> _Choice:
        """Read one of some words."""
        value = self.given.get(name, default)
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {', '.join(choices)}, got {type(value).__name__}")
        if value not in choices:
            self.add(name, f'is "{value}"; it may be {", ".join(choices)}')
        return choices.get(value, choices[default])

    def choices(self, name: str, choices: Mapping[str, _Choice]) -> list[_Choice]:
        """Read some of some words, each at most once."""
        words = self.texts(name)
        for word in dict.fromkeys(words):
            if word not in choices:
                self.add(name, f'hold "{word}"; there are {", ".join(choices)}')
            elif words.count(word) > 1:
                self.add(name, f'hold "{word}" {words.count(word)} times')
        return [choices[word] for word in words if word in choices]


def array_of(name: str, value: Any, of: str) -> NDArray[Any]:
    """Convert a sequence, an array or a tensor of any library to an array; a TypeError says what prevents it."""
    if isinstance(value, str | bytes) or (not isinstance(value, Sequence) and not hasattr(value, "__array__")):
        raise TypeError(f"{name} must be a sequence, an array or a tensor of {of}, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # a ragged list; a tensor on a GPU
        raise TypeError(f"{name} cannot be converted to an array of {of}: {error}") from error


def text_of(name: str, value: object) -> str:
    """Check a text, and raise a TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}")
    return value
