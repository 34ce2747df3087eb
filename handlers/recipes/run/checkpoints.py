"""Checkpoints of a training run: tensors as safetensors and a JSON document for each, in the run's folder.

The tensors are written first and the document last, and the document contains the tensors' SHA-256: an incomplete or
damaged checkpoint is detected. The two newest are kept, so that one remains when the newest is damaged. Nothing is
unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fount.files import PART_SUFFIX, atomic_write
from fount.json_text import parse_json
from handlers.recipes.run.history import History

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "check_identity",
    "has_checkpoint",
    "load_checkpoint",
    "lock_folder",
    "newest_healthy",
    "save_checkpoint",
]

_FORMAT = 1
_KEPT = 2
_LOCK_FILE = "lock"
_MAX_DOCUMENT_BYTES = 2**24
_DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


class CheckpointError(Exception):
    """A checkpoint cannot be written, is damaged, or is of another run. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training run between two steps.

    Attributes:
        step: number of steps taken.
        identity: everything the weights of the run depend on, by name.
        history: losses and snapshots so far.
        healthy: whether the last snapshot showed no symptom of a collapse.
        state: of the task.
    """

    step: int
    identity: Mapping[str, str]
    history: History
    healthy: bool
    state: Mapping[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and delete all but the two newest.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints remain.
    """
    content = save(dict(checkpoint.state))
    document = {
        "format": _FORMAT,
        "step": checkpoint.step,
        "sha256": hashlib.sha256(content).hexdigest(),
        "healthy": checkpoint.healthy,
        "run": dict(checkpoint.identity),
        "history": checkpoint.history.to_json(),
    }
    file = folder / f"step-{checkpoint.step:09d}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file.with_suffix(".safetensors"), content)
        atomic_write(file, (json.dumps(document, allow_nan=False) + "\n").encode())
        for other in _files_to_delete(folder, checkpoint.step):
            other.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written ({error}); free space, then continue with --resume") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has written a checkpoint here, damaged or not."""
    return bool(_documents(folder))


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest undamaged checkpoint; None without any. `warn` gets a message for each damaged one.

    Raises:
        CheckpointError: all checkpoints are damaged.
    """
    documents = _documents(folder)
    for file in documents:
        try:
            return _read(file)
        except _DAMAGES as error:
            warn(f"{file} is damaged ({error}); trying the checkpoint before it")
    if documents:
        raise CheckpointError(f"every checkpoint in {folder} is damaged; delete {folder.parent} and train again")
    return None


def check_identity(folder: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Compare the identity in the checkpoint of a run folder with that of the run to be continued.

    Raises:
        CheckpointError: they differ; all differences are named.
    """
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if names:
        lines = [f"  {name}: {found.get(name, 'none')} there, {expected.get(name, 'none')} here" for name in names]
        raise CheckpointError(
            f"the checkpoint in {folder} is of another run:\n" + "\n".join(lines) + "\n"
            f"Repeat the options of that run, train in another folder with --run, or delete {folder} to start again."
        )


def newest_healthy(folder: Path) -> Path | None:
    """Find the tensors of the newest undamaged checkpoint without any symptom of a collapse."""
    for file in _documents(folder):
        try:
            if _read(file).healthy:
                return file.with_suffix(".safetensors")
        except _DAMAGES:
            continue
    return None


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process, since two runs in one would delete each other's checkpoints.

    The folder is created when absent. The operating system releases the lock when the process ends.

    Raises:
        CheckpointError: another process has locked it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / _LOCK_FILE).open("a")
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); name another folder with --run") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another process trains in {folder}; wait for it, end it, or name another folder with --run"
            ) from error
        yield


def _documents(folder: Path) -> list[Path]:
    """List the documents of checkpoints, the newest first."""
    return sorted(folder.glob("step-?????????.json"), reverse=True)


def _read(file: Path) -> Checkpoint:
    if file.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise ValueError("its document is larger than 16 MiB")
    document: dict[str, Any] = parse_json(file.read_bytes())
    if document["format"] != _FORMAT:
        raise ValueError(f"its format is {document['format']}, expected is {_FORMAT}")
    if file.stem != f"step-{document['step']:09d}":
        raise ValueError(f"its step is {document['step']}, which differs from its name")
    content = file.with_suffix(".safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != document["sha256"]:
        raise ValueError("its tensors have another digest than its document says")
    return Checkpoint(
        step=int(document["step"]),
        identity=dict(document["run"]),
        history=History.from_json(document["history"]),
        healthy=bool(document["healthy"]),
        state=load(content),
    )


def _files_to_delete(folder: Path, step: int) -> Iterator[Path]:
    documents = _documents(folder)
    later = [file for file in documents if int(file.stem.removeprefix("step-")) > step]  # damaged: the run skipped them
    for file in (*later, *documents[len(later) + _KEPT :]):
        yield from (file, file.with_suffix(".safetensors"))  # in this order: no document without its tensors
    known = {file.stem for file in documents}
    yield from (file for file in folder.glob("step-*.safetensors") if file.stem not in known)  # without a document
    yield from folder.glob(f"*step-*{PART_SUFFIX}")
