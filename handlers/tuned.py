"""What was tuned: a YAML file that says, model by model, how it runs fastest on this machine.

`fount tune` writes it; workers, and whoever starts them, read it:

    models:
      mnist-cgan: {workers: 1, threads: 2, precision: fp32, layout: nhwc, compiled: false}

Every key of a model is optional. No torch here.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml

from handlers.cards.reader import Problem, Rule, read_fields

__all__ = ["TunedError", "TunedModel", "read_tuned", "write_tuned"]

_MAX_BYTES = 2**20
_HEADER = "# How models run fastest on this machine: written by `fount tune`, read by workers when they start.\n"


class TunedError(Exception):
    """A file of tuned models cannot be read or written. Mend the keys it names, or delete it and tune again."""


Count = Annotated[int, Rule(holds=lambda count: 1 <= count <= 1024, must_be="1 to 1024")]


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """How one model is to run; None leaves it to the other settings.

    Attributes:
        workers: processes; whoever starts them reads it.
        threads: of one operation on a CPU, in each.
        precision: what weights and activations are kept in.
        layout: how pictures lie in memory.
        compiled: whether the network is compiled at load.
    """

    workers: Count | None = None
    threads: Count | None = None
    precision: Literal["fp32", "bf16"] | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    compiled: bool | None = None


@dataclass(frozen=True, kw_only=True)
class _TunedFile:
    models: Mapping[str, TunedModel]


def read_tuned(file: Path) -> Mapping[str, TunedModel]:
    """Read a file of tuned models, by name.

    Raises:
        TunedError: it cannot be read, is larger than 1 MiB, not YAML, or has keys or values that are not known; all
            problems at once.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise TunedError(f"{file} is larger than 1 MiB; delete it and tune again")
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TunedError(f"{file} cannot be read: {error.strerror or error}; run `fount tune`") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TunedError(f"{file} is not YAML: {' '.join(str(error).split())}; delete it and tune again") from error
    problems: list[Problem] = []
    fields = read_fields(_TunedFile, document, "", problems)
    if problems or fields is None:
        raise TunedError(f"{file}: {'; '.join(map(str, problems))}")
    models: Mapping[str, TunedModel] = fields["models"]
    return models


def write_tuned(file: Path, model: str, tuned: TunedModel) -> None:
    """Put a model's entry into a file, whole or not at all; entries of other models stay.

    Raises:
        TunedError: the file is there and cannot be read, or cannot be written.
    """
    models = dict(read_tuned(file)) if file.exists() else {}
    models[model] = tuned
    document = {"models": {name: _to_plain(models[name]) for name in sorted(models)}}
    text = _HEADER + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, text)
    except OSError as error:
        raise TunedError(f"{file} cannot be written: {error.strerror or error}; name another with --out") from error


def _to_plain(tuned: TunedModel) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(tuned).items() if value is not None}


def _replace(file: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
