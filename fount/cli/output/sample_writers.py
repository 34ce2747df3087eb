"""Write a stream of samples to an image grid, one NPZ file, or a folder of PNG or text files.

`open_output` selects the writer by the path and reports what is wrong with the path before any sample is requested.
Chunks enter in order, in bounded memory; no partial result is ever mistaken for a complete one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from fount.cli.output.images import image_grid, to_pillow, to_uint8
from fount.cli.output.paths import check_output_file, check_output_folder
from fount.cli.output.points import points_to_picture
from fount.errors import OutputError, SampleFailed, output_errors
from fount.files import atomic_path, atomic_write
from fount.json_text import parse_json
from fount.names import normal_name
from fount.sampling.types import Chunk

__all__ = [
    "MAX_GRID", "SampleRun", "SampleWriter", "is_folder", "open_output", "refuse_failed", "sample_file_name",
]  # fmt: skip

MAX_GRID = 2500
"""The most images in a grid."""

_MAX_GRID_BYTES = 2**28
_MAX_CLASS_CHARACTERS = 32  # of a file name
_INDICES_PER_BLOCK = 2**16
_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class SampleRun:
    """What is going to be written.

    Attributes:
        seed: as requested; None when the server draws it.
        encoding: "uint8", "float32" or "png".
        class_names: by index; empty when unconditional.
        channels: of a sample; 0 of a vector or a text.
        is_text: whether samples are texts.
        sample_bytes: approximate size of one sample, to check the free disk space.
        request: condition and parameters as requested, as JSON values; with digest, seed and numerics they identify a
            run of samples.
    """

    count: int
    start_index: int = 0
    seed: int | None = None
    encoding: str = "uint8"
    class_names: Sequence[str] = ()
    channels: int = 1
    is_text: bool = False
    sample_bytes: int = 0
    request: Mapping[str, Any] = field(default_factory=dict)


class SampleWriter(ABC):
    """Writes the chunks of a stream in order: `add` each of them, then `finish`; or `abandon` after an error."""

    def __init__(self, path: Path, run: SampleRun) -> None:
        self._path, self._run = path, run

    def add(self, chunk: Chunk) -> None:
        """Write a chunk; a chunk with failed samples is refused."""
        refuse_failed(chunk)
        with output_errors(self._path):
            self._add(chunk)

    def finish(self) -> None:
        """Complete what was written and make it visible."""
        with output_errors(self._path):
            self._finish()

    @abstractmethod
    def _add(self, chunk: Chunk) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def abandon(self) -> None:
        """Leave nothing that could be mistaken for a complete result."""


def open_output(path: str, run: SampleRun) -> SampleWriter:
    """Select a writer by the path's suffix, and check the path before any sample is requested.

    Args:
        path: "*.png", "*.npz", or a folder: an existing one, or a path ending with "/".
        run: what is going to be written.
    """
    target, into_folder = Path(path), is_folder(path)
    if into_folder and not (run.channels or run.is_text):
        raise OutputError(f"{path} would hold images, and the samples are vectors: write a .npz or a .png file")
    if run.channels not in (0, 1, 3) and (into_folder or target.suffix.lower() == ".png"):
        raise OutputError(f"{path} would hold images of {run.channels} channels, and PNG has 1 or 3: write a .npz file")
    if into_folder:
        check_output_folder(target)
        _check_space(target, run)
        return _FolderWriter(target, run)
    if target.suffix.lower() not in (".png", ".npz"):
        raise OutputError(f"{path} has no known suffix: write to a .png file, a .npz file, or a folder ending with /")
    if run.encoding == "png":
        raise OutputError(f"{path} holds arrays: use the encoding uint8, or write PNG files to a folder/")
    check_output_file(target)
    _check_space(target, run)
    if target.suffix.lower() == ".npz":
        return _NpzWriter(target, run)
    if (run.count > MAX_GRID and run.channels) or run.count * run.sample_bytes > _MAX_GRID_BYTES:
        raise OutputError(f"A grid shows {MAX_GRID} images at most; write {run.count} to a .npz file or a folder/")
    return _GridWriter(target, run)


def is_folder(path: str) -> bool:
    """Whether a path names a folder: one that exists, or by a slash at its end."""
    with output_errors(Path(path)):
        return path.endswith(("/", os.sep)) or Path(path).is_dir()


def _check_space(path: Path, run: SampleRun) -> None:
    free, needed = shutil.disk_usage(path if path.is_dir() else path.parent).free, run.count * run.sample_bytes
    if needed > free:
        raise OutputError(f"{path} needs about {needed:,} bytes; {free:,} are free")


def refuse_failed(chunk: Chunk) -> None:
    """Raise SampleFailed for a chunk with failed samples, whose values are not samples."""
    if chunk.errors:
        raise SampleFailed([(error.index, f"{error.code}: {error.message}") for error in chunk.errors])


class _GridWriter(SampleWriter):
    """One image of all samples, each with its class name, or its index when unconditional, above.

    Of vectors, one picture of how densely they lie.
    """

    def __init__(self, path: Path, run: SampleRun) -> None:
        super().__init__(path, run)
        self._chunks: list[Chunk] = []

    def _add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)

    def _finish(self) -> None:
        images = np.concatenate([np.asarray(chunk) for chunk in self._chunks])
        value_range = self._chunks[0].shape_of_one.value_range
        if self._run.channels:
            captions = [caption for chunk in self._chunks for caption in self._captions(chunk)]
            grid = image_grid(images, captions, value_range=value_range)
        else:
            grid = image_grid(points_to_picture(images, value_range)[None], [""])
        with atomic_path(self._path) as temporary:
            grid.save(temporary, "PNG")

    def abandon(self) -> None:
        self._chunks.clear()

    def _captions(self, chunk: Chunk) -> list[str]:
        if chunk.labels is None:
            return [str(index) for index in chunk.indices]
        names = self._run.class_names
        return [names[label] if label < len(names) else str(label) for label in chunk.labels]


class _FolderWriter(SampleWriter):
    """One PNG file per sample, or text file, and a manifest that identifies their run.

    The same run may be continued or repeated in its folder, since a sample's address determines its bytes. A folder
    that holds anything else is refused, so samples of another run are never overwritten or mixed in.
    """

    def __init__(self, path: Path, run: SampleRun) -> None:
        super().__init__(path, run)
        self._known = self._read_manifest()
        self._ranges = [] if self._known is None else list(self._known.get("ranges", []))
        self._identity: dict[str, Any] | None = None
        if self._known is not None and (seed := self._known.get("seed")) != run.seed:
            raise self._other_run(f"seed {seed}; give --seed {seed} to continue it")

    def _add(self, chunk: Chunk) -> None:
        if self._identity is None:
            self._start(chunk)
        labels = [None] * len(chunk) if chunk.labels is None else chunk.labels.tolist()
        for row, label in enumerate(labels):
            name = sample_file_name(chunk.start_index + row, label, self._run.class_names)
            file = self._path / f"{name}{'.txt' if self._run.is_text else '.png'}"
            if self._run.is_text:
                file.write_bytes(chunk.texts[row].encode())
            elif chunk.samples is None:
                file.write_bytes(chunk.files[row])
            else:
                pixels = to_uint8(np.asarray(chunk.samples[row]), chunk.shape_of_one.value_range)
                to_pillow(pixels).save(file, "PNG")

    def _finish(self) -> None:
        written = [self._run.start_index, self._run.start_index + self._run.count]
        if written not in self._ranges:
            self._ranges = sorted([*self._ranges, written])
        self._write_manifest()

    def abandon(self) -> None:
        """Leave the files: the manifest does not count them, and the same run can be repeated over them."""

    def _start(self, chunk: Chunk) -> None:
        identity = {
            "model": str(chunk.model),
            "seed": chunk.seed,
            "numerics": chunk.numerics,
            "asked": dict(self._run.request),
        }
        for key, value in identity.items():
            if self._known is not None and self._known.get(key) != value:
                raise self._other_run(f"{key} {self._known.get(key)}")
        self._identity = identity
        self._path.mkdir(exist_ok=True)
        self._write_manifest()

    def _read_manifest(self) -> Mapping[str, Any] | None:
        if not self._path.is_dir() or not any(self._path.iterdir()):
            return None
        try:
            manifest = parse_json((self._path / _MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._path} is not empty and has no {_MANIFEST}; name another folder") from error
        if not isinstance(manifest, dict) or not _are_ranges(manifest.get("ranges", [])):
            raise OutputError(f"{self._path / _MANIFEST} is not a manifest; name another folder")
        return manifest

    def _write_manifest(self) -> None:
        manifest = {**(self._identity or {}), "ranges": self._ranges}
        atomic_write(self._path / _MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())

    def _other_run(self, difference: str) -> OutputError:
        return OutputError(f"{self._path} holds samples of another run ({difference}); name another folder")


def _are_ranges(value: object) -> bool:
    """Whether a value of a manifest is a list of [first, end], as folders are written."""
    return isinstance(value, list) and all(
        isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each) for each in value
    )


def sample_file_name(index: int, label: int | None, class_names: Sequence[str]) -> str:
    """Name a sample's file, without its suffix, by its index, class, and the class's name if the number differs.

    Class names are untrusted: of them, letters and digits of any script and "-" are kept.
    """
    if label is None:
        return f"{index:08d}"
    name = class_names[label] if label < len(class_names) else ""
    kept = (each if unicodedata.category(each)[0] in "LMN" else "-" for each in normal_name(name))
    safe = re.sub("-+", "-", "".join(kept))[:_MAX_CLASS_CHARACTERS].strip("-")
    return f"{index:08d}_label{label}{f'_{safe}' if safe and safe != str(label) else ''}"


class _NpzWriter(SampleWriter):
    """Arrays `samples`, `labels` and `classes` (when conditional), `indices`, `seed`, `model`, `digest`, `numerics`.

    With labels the file is a data set, which the readers read. Memory is constant: `samples` goes into the archive in
    chunks behind a header with its final shape, and labels wait in a temporary file: an archive takes one member at a
    time.
    """

    def __init__(self, path: Path, run: SampleRun) -> None:
        super().__init__(path, run)
        self._resources = ExitStack()
        with output_errors(path):
            temporary = self._resources.enter_context(atomic_path(path))
            self._file = self._resources.enter_context(temporary.open("wb"))
            self._labels = self._resources.enter_context(tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115 - the stack closes it
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._samples: IO[bytes] | None = None
        self._first: Chunk | None = None

    def _add(self, chunk: Chunk) -> None:
        if chunk.samples is None:
            raise OutputError(f"{self._path} holds arrays, not PNG files")
        if self._samples is None:
            self._first = chunk
            self._samples = self._open_array("samples", chunk.samples.shape[1:], chunk.samples.dtype)
        self._samples.write(chunk.samples.data)
        if chunk.labels is not None:
            self._labels.write(chunk.labels.astype("<i8").data)

    def _finish(self) -> None:
        first = self._first
        if first is None or self._samples is None:
            raise OutputError(f"{self._path} cannot be written: no samples arrived")
        self._samples.close()
        if first.labels is not None:
            self._labels.seek(0)
            with self._open_array("labels", (), np.dtype("<i8")) as member:
                shutil.copyfileobj(self._labels, member, 2**20)
        with self._open_array("indices", (), np.dtype("<u8")) as member:
            for done in range(0, self._run.count, _INDICES_PER_BLOCK):
                length = min(_INDICES_PER_BLOCK, self._run.count - done)
                member.write((np.uint64(self._run.start_index + done) + np.arange(length, dtype="<u8")).data)
        texts = {"model": str(first.model), "digest": first.model.digest, "numerics": first.numerics}
        small = {"seed": np.array(first.seed, np.uint64), **{name: np.array(text) for name, text in texts.items()}}
        if first.labels is not None and self._run.class_names:
            small["classes"] = np.array(self._run.class_names, np.str_)
        for name, array in small.items():
            with self._archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        self._archive.close()
        self._resources.close()

    def abandon(self) -> None:
        with suppress(OSError, ValueError):  # completing the archive may fail, and does not matter
            if self._samples is not None:
                self._samples.close()
            self._archive.close()
        abandoned = OutputError(f"{self._path} was abandoned")  # an exception makes `atomic_path` remove the file
        with suppress(OSError):
            self._resources.__exit__(OutputError, abandoned, None)

    def _open_array(self, name: str, sample_shape: tuple[int, ...], dtype: np.dtype[Any]) -> IO[bytes]:
        """Start an array whose first axis is the samples; the caller writes its elements."""
        member = self._archive.open(f"{name}.npy", "w", force_zip64=True)
        shape = (self._run.count, *sample_shape)
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, description)
        return member
