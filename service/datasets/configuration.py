"""From --data-set and --data-sets to settings, with everything that is wrong named at once.

mnist:
  path: data/mnist            # from the folder of this file; the one key that must be there
  classifier: mnist-classifier
  policy: [{kind: rotate, max: 15}, {kind: shift, probability: 0.5, max: 0.07}]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fount.readers import FORMATS, DatasetSource, Limits
from fount.transforms import Kind, Policy, Transform, violations
from service.errors import SetupError

__all__ = ["BUILT_IN", "DatasetSettings", "configured_datasets", "why_no_name"]


_KEYS = (
    "path", "format", "classes", "group", "held_out", "size", "channels", "classifier", "licence", "policy",
    "max_bytes",
)  # fmt: skip
_TRANSFORM_KEYS = ("kind", "probability", "min", "max")
_KINDS = {kind.name.lower(): kind for kind in Kind if kind}
_MOST_FILE_BYTES = 4 << 20
_MOST_SIDE = 4096


def configured_datasets(given: Sequence[str], file: Path | None) -> tuple[DatasetSettings, ...]:
    """Read what a command's options say.

    Args:
        given: NAME=PATH, one for each --data-set.
        file: of --data-sets; None: there is none.

    Raises:
        SetupError: names everything that is wrong. That files can be read is not looked at here.
    """
    wrong: list[str] = []
    settings = [each for text in given if (each := _read_pair(text, wrong))]
    for name, keys in (_load(file) if file else {}).items():
        reader = _Reader(name=str(name), file=file or Path(), keys=keys if isinstance(keys, dict) else {}, wrong=wrong)
        if not isinstance(keys, dict):
            reader.say("", f"is {keys!r}; write keys and values, path at least")
        else:
            settings.append(reader.settings())
    names = [each.name for each in settings]
    wrong += [f"data set {name!r} is configured twice; give one of them another name" for name in _twice(names)]
    if wrong:
        raise SetupError("; ".join(wrong))
    return tuple(settings)


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _read_pair(text: str, wrong: list[str]) -> DatasetSettings | None:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        wrong.append(f"--data-set {text!r} is not NAME=PATH, as in mnist=data/mnist")
        return None
    if why := why_no_name(name):
        wrong.append(f"--data-set {text!r}: {why}")
    return DatasetSettings(source=DatasetSource(name=name, path=Path(path).expanduser()))


def _load(file: Path) -> Mapping[Any, Any]:
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST_FILE_BYTES + 1)
        if len(text) > _MOST_FILE_BYTES:
            raise SetupError(f"{file} has more than {_MOST_FILE_BYTES} bytes; name the file of data sets")
        found = yaml.safe_load(text)
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror or error}; check --data-sets") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SetupError(f"{file} is no YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, dict):
        raise SetupError(f"{file} holds no data sets; write NAME: and below it path: and the other keys")
    return found


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads one data set's keys, noting what is wrong as it goes."""

    name: str
    file: Path
    keys: dict[Any, Any]
    wrong: list[str] = field(default_factory=list)

    def say(self, key: str, told: str) -> None:
        self.wrong.append(f"{self.file}, {self.name}{'.' if key else ''}{key}: {told}")

    def settings(self) -> DatasetSettings:
        if why := why_no_name(self.name):
            self.say("", why)
        self.check_keys("", self.keys, _KEYS)
        held_out = self.number("held_out", None)
        if held_out is not None and not 0 < held_out < 1:
            self.say("held_out", f"is {held_out:g}; a share lies between 0 and 1, as in 0.1")
        source = DatasetSource(
            name=self.name,
            path=self.path(),
            format=self.choice("format", FORMATS),
            classes=self.classes(),
            group=self.text("group"),
            held_out=held_out,
            size=self.size(),
            channels=self.channels(),
            licence=self.text("licence"),
            limits=self.limits(),
        )
        return DatasetSettings(source=source, classifier=self.text("classifier"), policy=self.policy())

    def check_keys(self, where: str, found: Mapping[Any, Any], known: Sequence[str]) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
                self.say(f"{where}{key}", f"is no key; {hint}")

    def text(self, key: str) -> str:
        value = self.keys.get(key, "")
        if not isinstance(value, str):
            self.say(key, f"is {value!r}; write text, in quotes if it looks like a number")
            return ""
        return value

    def path(self) -> Path:
        path = self.text("path")
        if not path:
            self.say("path", "is missing; name the file or folder")
        return self.file.parent / Path(path).expanduser()

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.keys.get(key, choices[0])
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            self.say(
                key, f"is {value!r}; {f'did you mean {near[0]}? ' if near else ''}it is one of {', '.join(choices)}"
            )
            return choices[0]
        return str(value)

    def number(self, key: str, unset: float | None) -> float | None:
        value = self.keys.get(key, unset)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        self.say(key, f"is {value!r}; write a number")
        return unset

    def classes(self) -> tuple[str, ...]:
        value = self.keys.get("classes", [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.say("classes", "is no list of names; put those that look like numbers into quotes")
            return ()
        return tuple(value)

    def size(self) -> tuple[int, int] | None:
        value = self.keys.get("size")
        if value is None:
            return None
        sound = isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value)
        if not sound or not all(1 <= each <= _MOST_SIDE for each in value):
            self.say("size", f"is {value!r}; write [height, width] in pixels, 1 to {_MOST_SIDE}")
            return None
        return value[0], value[1]

    def channels(self) -> int | None:
        value = self.keys.get("channels")
        if value is not None and (type(value) is not int or value not in (1, 3)):
            self.say("channels", f"is {value!r}; write 1 for grey or 3 for colours")
            return None
        return value

    def limits(self) -> Limits:
        value = self.keys.get("max_bytes", Limits().max_bytes)
        if type(value) is not int or value < 1:
            self.say("max_bytes", f"is {value!r}; write how many bytes of pixels there may be, unpacked")
            return Limits()
        return Limits(max_bytes=value)

    def policy(self) -> Policy | None:
        value = self.keys.get("policy")
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.say("policy", "is no list of transforms; write [{kind: rotate, probability: 0.5, min: 0, max: 15}]")
            return None
        read = [self.transform(f"policy[{place}].", each) for place, each in enumerate(value)]
        policy = Policy(transforms=tuple(each for each in read if each))
        if len(policy.transforms) == len(read):
            for each in violations(policy):
                self.say(each.key.replace("transforms", "policy", 1), f"{each.wrong}; {each.remedy}")
        return policy

    def transform(self, where: str, found: dict[Any, Any]) -> Transform | None:
        self.check_keys(where, found, _TRANSFORM_KEYS)
        kind = found.get("kind")
        if kind not in _KINDS:
            near = difflib.get_close_matches(str(kind), _KINDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            self.say(f"{where}kind", f"is {kind!r}; {hint}it is one of {', '.join(_KINDS)}")
            return None
        values = {"probability": 1.0, "min": 0.0, "max": 0.0}
        for key in values:
            value = found.get(key, values[key])
            if not isinstance(value, int | float) or isinstance(value, bool):
                self.say(f"{where}{key}", f"is {value!r}; write a number")
                return None
            values[key] = float(value)
        return Transform(kind=_KINDS[kind], probability=values["probability"], min=values["min"], max=values["max"])


# FOLDED FROM service.datasets.configuration:
# What is configured for one data set, and what is always there.


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """One data set, as configured.

    Attributes:
        source: where it lies and how it is read.
        classifier: the model that checks its labels unless a request names another; empty: none.
        policy: how its rows are transformed unless a request says otherwise; None: the safe policy.
    """

    source: DatasetSource
    classifier: str = ""
    policy: Policy | None = None

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.source.name


BUILT_IN = DatasetSettings(source=DatasetSource(name="digits"), classifier="digits-classifier")
"""Digits need no configuration."""


def why_no_name(name: str) -> str:
    """Say what is wrong with a data set's name; empty when nothing is."""
    if name == BUILT_IN.name:
        return f"{name!r} is built in; give the data set another name"
    if not _NAME.fullmatch(name):
        return f"{name[:80]!r} is no name; use up to 64 letters, digits, dots, dashes and underscores"
    return ""
