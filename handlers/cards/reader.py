"""Plain values, as YAML gives them, become frozen dataclasses; every problem is gathered, none is raised.

A record's type annotations are its schema: `Annotated[T, Rule(...)]` narrows a value, `Literal` lists choices, a field
with a default is an optional key, `T | None` may be null. Enters: what `yaml.safe_load` returned. Leaves: the fields
that could be read, and one `Problem` for each that could not.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Problem", "Rule", "default_of", "nearest", "read_fields"]

_BAD = object()  # stands for a value that could not be read; its problem has been noted

_PLAIN_NAMES: Mapping[type, str] = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a card.

    Attributes:
        key: where, for instance "limits.max_count"; empty is the whole card.
        wrong: what is there instead.
        remedy: what to do.
    """

    key: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.key}: " if self.key else ""
        return f"{place}{self.wrong}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must be beyond its type.

    Attributes:
        holds: whether a value of the right type is legal.
        must_be: the end of the sentence "must be ...".
    """

    holds: Callable[[Any], bool]
    must_be: str


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Find the known word a misspelt one was probably meant to be; None when nothing is near."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def read_fields(record: type, value: object, key: str, problems: list[Problem]) -> dict[str, Any] | None:
    """Read the fields of a dataclass from a mapping.

    Args:
        record: a dataclass whose annotations are the schema.
        value: what should be a mapping with a key a field.
        key: where it stands; empty at the top.
        problems: grows by what is wrong.

    Returns:
        The fields that could be read, absent optional ones at their defaults; None when the value is no mapping at all.
    """
    if not isinstance(value, dict):
        problems.append(_mistyped(key, value, "a mapping"))
        return None
    fields = {field.name: field for field in dataclasses.fields(record)}
    required = [name for name, field in fields.items() if _is_required(field)]
    _note_keys(value, list(fields), required, key, problems)
    hints = get_type_hints(record, include_extras=True)
    read = {n: default_of(f) for n, f in fields.items() if n not in value and n not in required}
    read |= {n: _read(hints[n], value[n], _join(key, n), problems) for n in fields if n in value}
    return {name: item for name, item in read.items() if item is not _BAD}


def _read(hint: Any, value: object, key: str, problems: list[Problem]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _read_ruled(arguments[0], arguments[1:], value, key, problems)
    if origin is Literal:
        return _read_choice(arguments, value, key, problems)
    if origin is tuple:
        return _read_tuple(arguments, value, key, problems)
    if NoneType in arguments:
        return None if value is None else _read(arguments[0], value, key, problems)
    if origin is Mapping:
        return _read_mapping(arguments[0], arguments[1], value, key, problems)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_record(hint, value, key, problems)
    return _read_plain(hint, value, key, problems)


def _read_ruled(hint: Any, rules: tuple[Any, ...], value: object, key: str, problems: list[Problem]) -> Any:
    read = _read(hint, value, key, problems)
    broken = [rule for rule in rules if isinstance(rule, Rule) and read is not _BAD and not rule.holds(read)]
    problems.extend(Problem(key=key, wrong=f"is {_show(value)}", remedy=f"must be {r.must_be}") for r in broken)
    return _BAD if broken else read


def _read_choice(choices: tuple[Any, ...], value: object, key: str, problems: list[Problem]) -> Any:
    if value in choices:
        return value
    near = nearest(str(value), choices)
    remedy = f"must be one of {', '.join(choices)}" + (f"; did you mean {near}?" if near else "")
    problems.append(Problem(key=key, wrong=f"is {_show(value)}", remedy=remedy))
    return _BAD


def _read_tuple(arguments: tuple[Any, ...], value: object, key: str, problems: list[Problem]) -> Any:
    variable = arguments[-1] is Ellipsis
    if not isinstance(value, list) or (not variable and len(value) != len(arguments)):
        problems.append(_mistyped(key, value, "a list" if variable else f"a list of {len(arguments)}"))
        return _BAD
    hints = [arguments[0]] * len(value) if variable else arguments
    read = [_read(hint, item, f"{key}[{i}]", problems) for i, (hint, item) in enumerate(zip(hints, value, strict=True))]
    return _BAD if any(item is _BAD for item in read) else tuple(read)


def _read_mapping(names: Any, hint: Any, value: object, key: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(_mistyped(key, value, "a mapping"))
        return _BAD
    keys = [_read(names, name, _join(key, name), problems) for name in value]
    read = {name: _read(hint, item, _join(key, name), problems) for name, item in value.items()}
    return _BAD if any(item is _BAD for item in [*keys, *read.values()]) else read


def _read_record(record: type, value: object, key: str, problems: list[Problem]) -> Any:
    before = len(problems)
    fields = read_fields(record, value, key, problems)
    return _BAD if fields is None or len(problems) > before else record(**fields)


def _read_plain(hint: Any, value: object, key: str, problems: list[Problem]) -> Any:
    if hint is Any:
        return _read_json(value, key, problems)
    if hint is float and type(value) in (int, float) and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if type(value) is hint and hint is not float:
        return value
    problems.append(_mistyped(key, value, _PLAIN_NAMES[hint]))
    return _BAD


def _read_json(value: object, key: str, problems: list[Problem]) -> Any:
    """Keep what JSON can say: digests are taken of canonical JSON."""
    before = len(problems)
    if isinstance(value, dict):
        for name, item in value.items():
            _read_plain(str, name, key, problems)
            _read_json(item, _join(key, name), problems)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _read_json(item, f"{key}[{i}]", problems)
    elif not isinstance(value, str | int | NoneType) and not (isinstance(value, float) and math.isfinite(value)):
        problems.append(_mistyped(key, value, "text, a finite number, true, false, null, a list or a mapping"))
    return value if len(problems) == before else _BAD


def _note_keys(value: dict[Any, Any], known: list[str], required: list[str], key: str, problems: list[Problem]) -> None:
    missing = [name for name in required if name not in value]
    for name in value:
        if name in known:
            continue
        meant = nearest(str(name), missing) or nearest(str(name), known)
        if meant in missing:
            missing.remove(meant)
        remedy = f"did you mean {meant!r}?" if meant else f"known keys: {', '.join(known)}"
        problems.append(Problem(key=_join(key, name), wrong="unknown key", remedy=remedy))
    problems.extend(Problem(key=_join(key, name), wrong="missing", remedy="add this key") for name in missing)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Give what an optional key is when absent; `dataclasses.MISSING` for one that must be there."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return default_of(field) is dataclasses.MISSING


def _mistyped(key: str, value: object, wanted: str) -> Problem:
    remedy = f"must be {wanted}"
    if wanted == _PLAIN_NAMES[str] and type(value) in (int, float):  # YAML reads 2.0 as a number
        remedy += f': put it in quotes, like "{value}"'
    return Problem(key=key, wrong=f"is {_show(value)}", remedy=remedy)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
