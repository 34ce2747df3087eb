"""Read documents into frozen dataclasses, and report every problem at once, each with its path.

Model cards, plan files, data-set files and `workers.yaml` are read with it. The type annotations of a dataclass made
with `record` are its schema; pydantic checks them. `fount.plain_yaml` gives plain values, `parse` gives the record.

Example:
    >>> @record
    ... class Tuned:
    ...     threads: Annotated[int, check(lambda n: 1 <= n <= 1024, "must be 1 to 1024")] = 1
    >>> parse(Tuned, {"thread": 2})
    Traceback (most recent call last):
    fount.documents.DocumentError: thread: unknown key; did you mean 'threads'?
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import NoneType
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

__all__ = ["DocumentError", "Problem", "check", "nearest", "parse", "path_of", "record"]

T = TypeVar("T")
_MAX_PROBLEMS = 100  # reported of one document
_MARKS = ("[key]", "[list]", "[mapping]")  # of pydantic, in places: a problem of the key itself, and tags of unions
_MUST_BE = {
    "string_type": "must be text", "bool_type": "must be true or false", "int_type": "must be a whole number",
    "int_from_float": "must be a whole number", "float_type": "must be a finite number",
    "finite_number": "must be a finite number", "tuple_type": "must be a list", "list_type": "must be a list",
    "dict_type": "must be a mapping", "mapping_type": "must be a mapping", "dataclass_type": "must be a mapping",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a document: what is there, and what to do.

    The key says where, as in "limits.max_count" or "policy[0].kind"; empty is the whole document.
    """

    key: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.wrong}; {self.remedy}" if self.key else f"{self.wrong}; {self.remedy}"


class DocumentError(ValueError):
    """A document breaks its schema. Correct its `problems`, which the message lists: the first hundred at most."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(islice(problems, _MAX_PROBLEMS + 1))
        if len(found) > _MAX_PROBLEMS:
            found[-1] = Problem(key="", wrong="has more problems", remedy="correct these first")
        self.problems = tuple(found)
        super().__init__("; ".join(map(str, found)))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only dataclass that `parse` can read: types are strict and unknown keys are problems."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def check(holds: Callable[[Any], bool], remedy: str) -> AfterValidator:
    """Narrow an annotated type by a condition; the remedy completes "must be …" in the problem reported."""

    def validate(value: Any) -> Any:
        if not holds(value):
            raise ValueError(remedy)
        return value

    return AfterValidator(validate)


def nearest(word: object, known: Sequence[str]) -> str | None:
    """Return the known word nearest to a misspelt one; None when none is near."""
    return next(iter(difflib.get_close_matches(str(word), known, n=1)), None)


def path_of(loc: Sequence[int | str]) -> str:
    """Write the place of a value as in `Problem.key`; long keys are cut."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s[:80]}" for s in loc if s not in _MARKS).removeprefix(".")


def parse(kind: type[T], value: object, more: Callable[[T], Iterator[Problem]] | None = None) -> T:
    """Check plain values against a record, or any other type pydantic knows, and build it.

    Args:
        kind: a dataclass made with `record`.
        value: what `fount.plain_yaml` returned, or a mapping of one's own.
        more: rules between fields; they run when every field is right by itself.

    Raises:
        DocumentError: names every problem.
    """
    problems = list(_not_plain(value, ""))
    if problems:
        raise DocumentError(problems)
    try:
        parsed: T = _validate(_adapter(kind), value)  # type: ignore[arg-type]
    except ValidationError as error:
        raise DocumentError(_problems(kind, error)) from error
    if more and (problems := list(more(parsed))):
        raise DocumentError(problems)
    return parsed


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validate(adapter: TypeAdapter[T], value: object) -> T:
    """Validate plain values; numbers and truth values where text is expected are replaced by their text in the file."""
    plain = json.dumps(value, default=dict)
    try:
        return adapter.validate_json(plain)  # JSON mode: a list may be a tuple, and no more
    except ValidationError as error:
        found = error.errors(include_url=False)
        unread = [tuple(s for s in e["loc"] if s not in _MARKS) for e in found if e["type"] == "string_type"]
        texts = {loc: text for loc in unread if (text := _written(value, loc)) is not None}
        if not texts:
            raise
    document = json.loads(plain)
    for (*steps, last), text in texts.items():
        functools.reduce(operator.getitem, steps, document)[last] = text
    return adapter.validate_json(json.dumps(document))


def _written(value: Any, loc: tuple[int | str, ...]) -> str | None:
    """Return the text of the scalar at a place in the file; None: it is text, or its file is unknown."""
    try:
        *steps, last = loc
        text: str | None = functools.reduce(operator.getitem, steps, value).written.get(last)
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    return text


def _problems(kind: Any, error: ValidationError) -> Iterator[Problem]:
    """Translate pydantic's errors; a missing key that an unknown one was meant to be is not named twice."""
    errors = error.errors(include_url=False)
    missing: dict[tuple[int | str, ...], list[int | str]] = {}
    for e in errors:
        if e["type"].startswith("missing"):
            missing.setdefault(e["loc"][:-1], []).append(e["loc"][-1])
    for e in errors:
        where = path_of(e["loc"])
        if e["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known, absent = _fields_at(kind, e["loc"][:-1]), missing.get(e["loc"][:-1], [])
            meant = nearest(e["loc"][-1], list(map(str, absent))) or nearest(e["loc"][-1], known)
            if meant in absent:
                absent.remove(meant)
            remedy = f"did you mean {meant!r}?" if meant else f"known keys: {', '.join(known)}"
            yield Problem(key=where, wrong="unknown key", remedy=remedy)
        elif isinstance(nested := e.get("ctx", {}).get("error"), DocumentError):  # of a field with a parser of its own
            yield from (dataclasses.replace(each, key=_join(where, each.key)) for each in nested.problems)
        elif not e["type"].startswith("missing"):
            yield Problem(key=where, wrong=f"is {_show(e['input'])}", remedy=_remedy(e))
    for parent, keys in missing.items():
        for key in keys:
            remedy = f"add this {'item' if isinstance(key, int) else 'key'}"
            yield Problem(key=path_of((*parent, key)), wrong="missing", remedy=remedy)


def _remedy(error: Mapping[str, Any]) -> str:
    kind, given = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        choices = [choice.strip().strip("'") for choice in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = nearest(given, choices)
        return f"must be one of {', '.join(choices)}" + (f"; did you mean {near}?" if near else "")
    if kind == "string_type" and type(given) in (int, float, NoneType):
        return f'must be text: put it in quotes, like "{"null" if given is None else given}"'
    if kind in ("too_long", "too_short"):
        bounds = error["ctx"]
        return f"must be a list of {bounds.get('max_length', bounds.get('min_length'))}"
    return _MUST_BE.get(kind) or error["msg"].replace("Input should", "must", 1)


def _fields_at(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    """List the keys that the record at a place may have."""
    for step in loc:
        kind = _plain_type(kind)
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind, include_extras=True).get(str(step), Any)
        elif arguments := get_args(kind):
            kind = arguments[-1] if arguments[-1] is not Ellipsis else arguments[0]
    kind = _plain_type(kind)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _plain_type(kind: Any) -> Any:
    while get_origin(kind) is Annotated or NoneType in get_args(kind):
        kind = next(argument for argument in get_args(kind) if argument is not NoneType)
    return kind


def _not_plain(value: object, key: str) -> Iterator[Problem]:
    """Find what JSON cannot express: dates, bytes, sets, keys that are no text, numbers that are not finite."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            shown = name if isinstance(name, str) else _show(name)
            where = f"{key}.{shown}" if key else shown
            if not isinstance(name, str):
                yield Problem(key=where, wrong=f"has the key {shown}", remedy=f'put it in quotes, like "{shown}"')
            yield from _not_plain(item, where)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _not_plain(item, f"{key}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(key=key, wrong=f"is {value}", remedy="must be a finite number")
    elif isinstance(value, int) and value.bit_length() > 1024:
        yield Problem(key=key, wrong="is larger than any float", remedy="must be a finite number")
    elif not isinstance(value, str | int | float | NoneType):
        remedy = "must be text, a finite number, true, false, null, a list or a mapping"
        yield Problem(key=key, wrong=f"is {_show(value)}", remedy=remedy)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}".strip(".").replace(".[", "[")


def _show(value: object) -> str:
    huge = isinstance(value, int) and value.bit_length() > 1024  # Python refuses to write thousands of digits
    text = "a huge number" if huge else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
