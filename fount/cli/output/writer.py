"""What every writer of samples is told, does, and refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fount.errors import OutputError, SampleFailed
from fount.sampling.types import Chunk

__all__ = ["Run", "SampleWriter", "refuse_failed", "writing"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is going to be written.

    Attributes:
        count: how many samples.
        start_index: index of the first.
        seed: the seed asked for; None when the server draws it.
        encoding: "uint8", "float32" or "png".
        class_names: by index; empty when unconditional.
        bytes_each: bytes of one sample, as far as known; for the check that there is room.
        asked: model, condition and parameters as asked for, as JSON values; with digest, seed and numerics they are
            what makes one run of samples another.
    """

    count: int
    start_index: int = 0
    seed: int | None = None
    encoding: str = "uint8"
    class_names: Sequence[str] = ()
    bytes_each: int = 0
    asked: Mapping[str, Any] = field(default_factory=dict)


class SampleWriter(Protocol):
    """Takes the chunks of a stream, in order."""

    def add(self, chunk: Chunk) -> None:
        """Write a chunk.

        Raises:
            OutputError: it cannot be written.
            SampleFailed: a sample of it carries an error.
        """
        ...

    def finish(self) -> None:
        """Make what was written whole and visible.

        Raises:
            OutputError: it cannot be.
        """
        ...

    def abandon(self) -> None:
        """Leave nothing behind that could be taken for whole."""
        ...


class writing:  # noqa: N801 - read as a phrase: `with writing(path):`
    """Turns what the file system refuses within the block into an `OutputError` naming the path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error


def refuse_failed(chunk: Chunk) -> None:
    """Let no failed sample be written as if it were one.

    Raises:
        SampleFailed: the chunk has errors.
    """
    if chunk.errors:
        raise SampleFailed([(error.index, f"{error.code}: {error.message}") for error in chunk.errors])
