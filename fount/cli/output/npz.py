"""One NPZ file of any number of samples, written in flat memory.

The array goes into the archive chunk by chunk behind a header that names its whole shape; labels wait in a temporary
file, because a zip archive takes one member at a time. The file appears under its name once it is whole.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fount.cli.output.writer import Run, refuse_failed, writing
from fount.errors import OutputError
from fount.sampling.types import Chunk

__all__ = ["NpzWriter"]

_INDICES_A_BLOCK = 2**16


class NpzWriter:
    """Arrays `samples`, `labels` (absent when unconditional), `indices`, `seed`, `model`, `digest` and `numerics`."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path, self._run = path, run
        self._resources = ExitStack()
        with writing(path):
            handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            self._part = Path(part)
            self._file = self._resources.enter_context(os.fdopen(handle, "wb"))
            self._labels = self._resources.enter_context(tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115 - the stack closes it
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._member: IO[bytes] | None = None
        self._first: Chunk | None = None

    def add(self, chunk: Chunk) -> None:
        """Append a chunk."""
        refuse_failed(chunk)
        if chunk.samples is None:
            raise OutputError(f"{self._path} holds arrays, not PNG files")
        with writing(self._path):
            if self._member is None:
                self._first = chunk
                self._member = self._archive.open("samples.npy", "w", force_zip64=True)
                self._member.write(_npy_header((self._run.count, *chunk.samples.shape[1:]), chunk.samples.dtype))
            self._member.write(chunk.samples.data)
            if chunk.labels is not None:
                self._labels.write(chunk.labels.astype("<i8").data)

    def finish(self) -> None:
        """Add the small arrays, and give the file its name."""
        first = self._first
        if first is None or self._member is None:
            raise OutputError(f"{self._path} cannot be written: no samples came")
        with writing(self._path):
            self._member.close()
            if first.labels is not None:
                self._write_labels()
            self._write_indices()
            self._write_array("seed", np.array(first.seed, np.uint64))
            for name, text in (
                ("model", str(first.model)),
                ("digest", first.model.digest),
                ("numerics", first.numerics),
            ):
                self._write_array(name, np.array(text))
            self._archive.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._resources.close()
            _give_usual_permissions(self._part)
            self._part.replace(self._path)

    def abandon(self) -> None:
        """Remove what was written."""
        with suppress(OSError, ValueError):  # what is thrown away may well refuse to be completed
            if self._member is not None:
                self._member.close()
            self._archive.close()
        with suppress(OSError):
            self._resources.close()
        self._part.unlink(missing_ok=True)

    def _write_labels(self) -> None:
        self._labels.seek(0)
        with self._archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(_npy_header((self._run.count,), np.dtype("<i8")))
            shutil.copyfileobj(self._labels, member, 2**20)

    def _write_indices(self) -> None:
        with self._archive.open("indices.npy", "w", force_zip64=True) as member:
            member.write(_npy_header((self._run.count,), np.dtype("<u8")))
            for block in _blocks(self._run):
                member.write(block.data)

    def _write_array(self, name: str, array: NDArray[Any]) -> None:
        with self._archive.open(f"{name}.npy", "w") as member:
            np.lib.format.write_array(member, array, allow_pickle=False)


def _blocks(run: Run) -> Iterator[NDArray[np.uint64]]:
    for done in range(0, run.count, _INDICES_A_BLOCK):
        length = min(_INDICES_A_BLOCK, run.count - done)
        yield np.uint64(run.start_index + done) + np.arange(length, dtype="<u8")


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _give_usual_permissions(path: Path) -> None:
    """Temporary files are their owner's alone; a result has the permissions any new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
