"""Checkpoints: all a training run needs to go on, as safetensors with a JSON document beside, in the run's folder.

The tensors are written first, the document last, and the document names the tensors' SHA-256: what was cut off in
between, or damaged since, is not taken for whole. The two newest are kept, so that there is one before. Nothing is
unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from handlers.recipes.run.watch import Look

__all__ = [
    "MOST_POINTS",
    "PART_SUFFIX",
    "Checkpoint",
    "CheckpointError",
    "History",
    "alone_in",
    "check_identity",
    "has_checkpoint",
    "load_checkpoint",
    "newest_healthy",
    "save_checkpoint",
    "write_whole",
]


_FORMAT = 1
_KEPT = 2
_MAX_DOCUMENT_BYTES = 2**24
_DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


class CheckpointError(Exception):
    """A checkpoint cannot be written, is not whole, or is of another run. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training run between two steps.

    Attributes:
        step: how many have been taken.
        identity: what the weights of the run depend on, by name.
        history: what it has seen.
        healthy: whether its last probe saw no sign of a collapse.
        state: of its task.
    """

    step: int
    identity: Mapping[str, str]
    history: History
    healthy: bool
    state: Mapping[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and delete all but the two newest.

    Raises:
        CheckpointError: it cannot be written; those before are still there.
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
        write_whole(file.with_suffix(".safetensors"), content)
        write_whole(file, (json.dumps(document, allow_nan=False) + "\n").encode())
        _delete_others(folder, checkpoint.step)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written ({error}); make room, then go on by --resume") from error


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a run has left something here, whole or not."""
    return bool(_documents(folder))


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None when there is none at all.

    Args:
        folder: of the run's checkpoints.
        warn: told of every damaged one.

    Raises:
        CheckpointError: there are some, and none is whole.
    """
    documents = _documents(folder)
    for file in documents:
        try:
            return _read(file)
        except _DAMAGES as error:
            warn(f"{file} is damaged ({error}); trying the one before")
    if documents:
        raise CheckpointError(f"no checkpoint in {folder} is whole; delete {folder.parent} and train again")
    return None


def check_identity(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse to go on with another run.

    Args:
        folder: of the run, named in the message.
        found: identity of its checkpoint.
        wanted: identity of what is to go on.

    Raises:
        CheckpointError: they differ; all differences are named.
    """
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if names:
        lines = [f"  {name}: {found.get(name, 'none')} there, {wanted.get(name, 'none')} here" for name in names]
        raise CheckpointError(
            f"the checkpoint in {folder} is of another run:\n" + "\n".join(lines) + "\n"
            f"Give what that run was given, train in another folder by --run, or delete {folder} to start anew."
        )


def newest_healthy(folder: Path) -> Path | None:
    """Name the tensors of the newest whole checkpoint from before any sign of a collapse."""
    for file in _documents(folder):
        try:
            if _read(file).healthy:
                return file.with_suffix(".safetensors")
        except _DAMAGES:
            continue
    return None


def _documents(folder: Path) -> list[Path]:
    """Documents, the newest first."""
    return sorted(folder.glob("step-?????????.json"), reverse=True)


def _read(file: Path) -> Checkpoint:
    if file.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise ValueError("its document is larger than 16 MiB")
    document: dict[str, Any] = json.loads(file.read_bytes())
    if document["format"] != _FORMAT:
        raise ValueError(f"its format is {document['format']}, known is {_FORMAT}")
    if file.stem != f"step-{document['step']:09d}":
        raise ValueError(f"its step is {document['step']}, its name says another")
    content = file.with_suffix(".safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != document["sha256"]:
        raise ValueError("its tensors are not those its document was written for")
    return Checkpoint(
        step=int(document["step"]),
        identity=dict(document["run"]),
        history=History.from_json(document["history"]),
        healthy=bool(document["healthy"]),
        state=load(content),
    )


def _delete_others(folder: Path, step: int) -> None:
    for file in _files_to_delete(folder, step):
        file.unlink(missing_ok=True)


def _files_to_delete(folder: Path, step: int) -> Iterator[Path]:
    documents = _documents(folder)
    later = [file for file in documents if int(file.stem.removeprefix("step-")) > step]  # damaged: not gone on from
    for file in (*later, *documents[len(later) + _KEPT :]):
        yield from (file, file.with_suffix(".safetensors"))  # in this order: no document without its tensors
    known = {file.stem for file in documents}
    yield from (file for file in folder.glob("step-*.safetensors") if file.stem not in known)  # cut off before the JSON
    yield from folder.glob(f"step-*{PART_SUFFIX}")


# FOLDED FROM handlers.recipes.run.checkpoints:
# One process a run folder: two that trained in one would each delete the other's checkpoints.


_FILE = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made when absent; the system lets go of it when the process ends, however it ends.

    Raises:
        CheckpointError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / _FILE).open("a")
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); name another folder by --run") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another process trains in {folder}; wait for it, end it, or name another folder by --run"
            ) from error
        yield


# FOLDED FROM handlers.recipes.run.checkpoints:
# What a training run has seen so far: losses, thinned out so that they never grow, and looks of its probes.


MOST_POINTS = 1000
"""Losses kept; when there are more, every other is dropped and half as many are kept from then on."""


@dataclass(kw_only=True)
class History:
    """Losses and looks.

    Attributes:
        losses: (step, named losses) in order; steps count from 1 and are multiples of stride.
        looks: all of them; a run takes a fixed number.
        stride: how many steps lie between two losses kept.
    """

    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    stride: int = 1

    def add_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Keep the losses of a step, or not, by its number alone."""
        if step % self.stride:
            return
        self.losses.append((step, dict(losses)))
        if len(self.losses) > MOST_POINTS:
            self.stride *= 2
            self.losses = [point for point in self.losses if point[0] % self.stride == 0]

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` reads."""
        looks = [{"step": look.step, "accuracies": look.accuracies, "ratio": look.ratio} for look in self.looks]
        return {"stride": self.stride, "losses": self.losses, "looks": looks}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            stride=int(document["stride"]),
            losses=[(int(step), dict(losses)) for step, losses in document["losses"]],
            looks=[
                Look(step=look["step"], accuracies=tuple(look["accuracies"]), ratio=look["ratio"])
                for look in document["looks"]
            ],
        )


# FOLDED FROM handlers.recipes.run.checkpoints:
# Files that are there whole or not at all, whenever the process or the machine ends: written beside, then
# renamed.


PART_SUFFIX = ".part"
"""Ends the name of what was never finished; it may be deleted."""


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, replacing one of its name; when this returns, it outlasts a loss of power.

    Args:
        file: in a folder that is there; one process writes it at a time.
        content: all of it.

    Raises:
        OSError: it could not be written; the file is as it was.
    """
    part = file.with_name(file.name + PART_SUFFIX)
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name last, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
