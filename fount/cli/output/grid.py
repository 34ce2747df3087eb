"""Where samples go: a picture grid, one NPZ file, or a folder of PNG files.

A writer takes the chunks of a stream in order and in bounded memory. What can be known to be wrong with the place is
said before anything is drawn, and nothing half-written is ever taken for whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from fount.cli.output.folder import FolderWriter
from fount.cli.output.images import image_grid
from fount.cli.output.npz import NpzWriter
from fount.cli.output.writer import Run, SampleWriter, refuse_failed, writing
from fount.errors import OutputError
from fount.sampling.types import Chunk

__all__ = ["MAX_GRID", "GridWriter", "Run", "SampleWriter", "open_output"]

MAX_GRID = 2500
"""The most pictures a grid is drawn of."""

_MAX_GRID_BYTES = 2**28


def open_output(path: str, run: Run) -> SampleWriter:
    """Choose a writer by the path's ending, and check what can be checked before anything is drawn.

    Args:
        path: "*.png", "*.npz", or a folder: one that exists, or a path ending with "/".
        run: what is going to be written.

    Raises:
        OutputError: the ending says nothing, the place cannot be written, there is no room, or a folder holds
            something else.
    """
    place = Path(path)
    if path.endswith(("/", os.sep)) or place.is_dir():
        _check_place(place, place.parent, run)
        return FolderWriter(place, run)
    if place.suffix.lower() not in (".png", ".npz"):
        raise OutputError(f"{path} says no format: write to a .png file, a .npz file, or a folder ending with /")
    if run.encoding == "png":
        raise OutputError(f"{path} is made of arrays: ask for encoding uint8, or write PNG files to a folder/")
    _check_place(place, place.parent, run)
    if place.suffix.lower() == ".npz":
        return NpzWriter(place, run)
    if run.count > MAX_GRID or run.count * run.bytes_each > _MAX_GRID_BYTES:
        raise OutputError(f"A grid shows {MAX_GRID} pictures at most; write {run.count} to a .npz file or a folder/")
    return GridWriter(place, run)


def _check_place(place: Path, parent: Path, run: Run) -> None:
    if not parent.is_dir():
        raise OutputError(f"{place} cannot be written: there is no folder {parent}")
    nearest = place if place.is_dir() else parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written: no permission to write in {nearest}")
    free = shutil.disk_usage(nearest).free
    if run.count * run.bytes_each > free:
        raise OutputError(f"{place} needs about {run.count * run.bytes_each:,} bytes; {free:,} are free")


class GridWriter:
    """One picture of all samples, each with its class name, or its index when unconditional, above."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path, self._run = path, run
        self._chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """Keep a chunk until the end."""
        refuse_failed(chunk)
        self._chunks.append(chunk)

    def finish(self) -> None:
        """Draw the grid and write it."""
        images = np.concatenate([np.asarray(chunk) for chunk in self._chunks])
        captions = [caption for chunk in self._chunks for caption in self._captions(chunk)]
        grid = image_grid(images, captions, value_range=self._chunks[0].shape_of_one.value_range)
        part = self._path.with_name(f".{self._path.name}.part")
        with writing(self._path):
            try:
                grid.save(part, "PNG")
                part.replace(self._path)
            finally:
                part.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Nothing was written before the end."""

    def _captions(self, chunk: Chunk) -> list[str]:
        if chunk.labels is None:
            return [str(index) for index in chunk.indices]
        names = self._run.class_names
        return [names[label] if label < len(names) else str(label) for label in chunk.labels]
