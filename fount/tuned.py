"""The file of tuned worker settings, `workers.yaml`: how each model runs fastest on this machine.

`fount tune` writes it. Workers read the entry of their model when they load; `fount serve` reads the numbers of
workers and threads before it starts TorchServe:

    models:
      mnist-cgan: {workers: 1, threads: 2, precision: fp32, layout: nhwc, folded: true, compiled: false}

Every key of a model is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from fount.documents import DocumentError, check, parse, record
from fount.files import atomic_write
from fount.plain_yaml import dump_yaml, read_yaml

__all__ = ["TunedError", "TunedModel", "read_tuned", "write_tuned"]

_HEADER = "# How models run fastest on this machine: written by `fount tune`, read by workers when they start.\n"

Count = Annotated[int, check(lambda count: 1 <= count <= 1024, "must be 1 to 1024")]


class TunedError(Exception):
    """A file of tuned settings cannot be read or written. Correct the keys it names, or delete it and tune again."""


@record
class TunedModel:
    """How one model runs; None leaves a setting to the command line and the environment.

    Attributes:
        workers: processes a model version.
        threads: torch threads a process.
        layout: memory layout of images.
        folded: whether batch normalisation is folded into the layers before it when the network is loaded.
        compiled: whether the network is compiled when it is loaded.
    """

    workers: Count | None = None
    threads: Count | None = None
    precision: Literal["fp32", "bf16"] | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    folded: bool | None = None
    compiled: bool | None = None


@record
class _TunedFile:
    models: Mapping[str, TunedModel | None] | None = None


def read_tuned(file: Path) -> dict[str, TunedModel]:
    """Read the entries of a file, by model name; a TunedError names every problem."""
    try:
        document = read_yaml(file)
        models = parse(_TunedFile, {} if document is None else document).models or {}
    except OSError as error:
        raise TunedError(f"{file} cannot be read: {error.strerror or error}; run `fount tune NAME`") from error
    except DocumentError as error:
        raise TunedError(f"{file}: {error}") from error
    return {name: entry or TunedModel() for name, entry in models.items()}


def write_tuned(file: Path, model: str, tuned: TunedModel) -> None:
    """Write a model's entry into a file, atomically; entries of other models stay."""
    models = read_tuned(file) if file.exists() else {}
    models[model] = tuned
    plain = {name: {key: value for key, value in vars(models[name]).items() if value is not None} for name in models}
    document = {"models": dict(sorted(plain.items()))}
    text = _HEADER + dump_yaml(document)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, text.encode(), durable=False)
    except OSError as error:
        raise TunedError(f"{file} cannot be written: {error.strerror or error}; name another with --out") from error
