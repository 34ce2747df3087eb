"""Read the data sets of --data-set and --data-sets into `DatasetSettings`; every problem is reported at once.

The file of --data-sets maps names to settings:

    mnist:
      path: data/mnist            # relative to the folder of this file; the only required key
      classifier: mnist-classifier
      policy: [{rotate: [0, 15]}, {shift: [0, 0.07], probability: 0.5}]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from fount.documents import DocumentError, Problem, check, parse, record
from fount.plain_yaml import read_yaml
from fount.readers import Background, DatasetSource, Format, Limits
from fount.transforms import PolicyDocument
from service.datasets.catalog import BUILT_IN, DatasetSettings
from service.errors import SetupError

__all__ = ["configured_datasets"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_FILE_BYTES = 4 << 20
_MAX_SIDE_PIXELS = 4096


def _pair(size: object) -> object:
    if not (isinstance(size, list) and len(size) == 2):
        raise ValueError("must be [height, width], as in [32, 32]")
    return tuple(size)


_Side = Annotated[int, check(lambda side: 1 <= side <= _MAX_SIDE_PIXELS, f"must be 1 to {_MAX_SIDE_PIXELS} pixels")]


@record
class _Entry:
    """One data set in the file of --data-sets; the keys are those of `DatasetSource` and `DatasetSettings`."""

    path: Annotated[str, check(bool, "must be a file or folder")]
    format: Format = "auto"
    classes: tuple[str, ...] = ()
    group: str = ""
    held_out: Annotated[float, check(lambda share: 0 < share < 1, "must be between 0 and 1, as in 0.1")] | None = None
    size: Annotated[tuple[_Side, _Side] | None, BeforeValidator(_pair)] = None
    channels: Literal[1, 3] | None = None
    background: Background | None = None
    classifier: str = ""
    licence: str = ""
    max_bytes: Annotated[int, check(lambda size: size >= 1, "must be 1 or more")] = Limits().max_bytes
    policy: PolicyDocument | None = None

    def settings(self, name: str, folder: Path) -> DatasetSettings:
        source = DatasetSource(
            name=name,
            path=folder / Path(self.path).expanduser(),
            format=self.format,
            classes=self.classes,
            group=self.group,
            held_out=self.held_out,
            size=self.size,
            channels=self.channels,
            background=self.background,
            licence=self.licence,
            limits=Limits(max_bytes=self.max_bytes),
        )
        return DatasetSettings(source=source, classifier=self.classifier, policy=self.policy)


def configured_datasets(pairs: Sequence[str], file: Path | None) -> tuple[DatasetSettings, ...]:
    """Read the options of a command; the files of the data sets are not opened here.

    Args:
        pairs: NAME=PATH, one per --data-set.
        file: of --data-sets; None: there is none.

    Raises:
        SetupError: names every problem.
    """
    problems: list[str] = []
    settings: list[DatasetSettings] = []
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not (name and path):
            problems.append(f"--data-set {pair!r} is not NAME=PATH, as in mnist=data/mnist")
            continue
        problems += [f"--data-set {pair!r}: {problem}" for problem in _name_problems(name)]
        settings.append(DatasetSettings(source=DatasetSource(name=name, path=Path(path).expanduser())))
    if file is not None:
        try:
            settings += _read_file(file)
        except DocumentError as error:
            problems.append(f"{file}: {error}")
        except OSError as error:
            problems.append(f"{file} cannot be read: {error.strerror or error}; check --data-sets")
    counts = Counter(each.name for each in settings)
    problems += [
        f"data set {name!r} is configured twice; give one of them another name"
        for name, count in sorted(counts.items())
        if count > 1
    ]
    if problems:
        raise SetupError("; ".join(problems))
    return tuple(settings)


def _read_file(file: Path) -> list[DatasetSettings]:
    document = read_yaml(file, _MAX_FILE_BYTES)
    if not isinstance(document, dict):
        raise DocumentError([Problem(key="", wrong="holds no data sets", remedy="write NAME: and below it path: PATH")])
    problems = [problem for name in document for problem in _name_problems(str(name))]
    try:
        entries = parse(dict[str, _Entry], document)
    except DocumentError as error:
        raise DocumentError([*problems, *error.problems]) from error
    if problems:
        raise DocumentError(problems)
    return [entry.settings(name, file.parent) for name, entry in entries.items()]


def _name_problems(name: str) -> Iterator[Problem]:
    if name in {each.name for each in BUILT_IN}:
        yield Problem(key="", wrong=f"{name!r} is built in", remedy="give the data set another name")
    elif not _NAME.fullmatch(name):
        remedy = "use up to 64 letters, digits, dots, dashes and underscores"
        yield Problem(key="", wrong=f"{name[:80]!r} is not a valid name", remedy=remedy)
