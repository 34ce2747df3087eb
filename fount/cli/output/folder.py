"""A folder of one PNG file a sample, and a manifest that says which run they are of.

The same run may be continued or repeated in its folder, since a sample's address fixes its bytes. A folder that holds
anything else is refused, so that no sample of another run is ever overwritten or mixed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fount.cli.output.images import picture, to_uint8
from fount.cli.output.writer import Run, refuse_failed, writing
from fount.errors import OutputError
from fount.sampling.types import Chunk

__all__ = ["MANIFEST", "FolderWriter", "file_name"]

MANIFEST = "manifest.json"

_LONGEST_NAME = 32


def file_name(index: int, label: int | None, class_names: Sequence[str]) -> str:
    """Name a sample's file by its index, its class, and the class's name where that says more and is safe to write.

    Args:
        index: the sample's index.
        label: its class; None when unconditional.
        class_names: by class, as a server sent them; only ASCII letters, digits and "-" of them are kept.
    """
    if label is None:
        return f"{index:08d}.png"
    name = class_names[label] if label < len(class_names) else ""
    safe = re.sub(r"[^A-Za-z0-9]+", "-", name)[:_LONGEST_NAME].strip("-")
    return f"{index:08d}_label{label}{f'_{safe}' if safe and safe != str(label) else ''}.png"


class FolderWriter:
    """One PNG file a sample."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path, self._run = path, run
        self._known = self._read_manifest()
        self._identity: dict[str, Any] | None = None
        if self._known is not None and self._known.get("seed") != run.seed:
            raise self._other_run(f"seed {self._known.get('seed')}; give --seed {self._known.get('seed')} to go on")

    def add(self, chunk: Chunk) -> None:
        """Write a chunk's files."""
        refuse_failed(chunk)
        if self._identity is None:
            self._begin(chunk)
        labels = [None] * len(chunk) if chunk.labels is None else chunk.labels.tolist()
        with writing(self._path):
            for row, label in enumerate(labels):
                file = self._path / file_name(chunk.start_index + row, label, self._run.class_names)
                if chunk.samples is None:
                    file.write_bytes(chunk.files[row])
                else:
                    pixels = to_uint8(np.asarray(chunk.samples[row]), chunk.shape_of_one.value_range)
                    picture(pixels).save(file, "PNG")

    def finish(self) -> None:
        """Write in the manifest that the range is there."""
        ranges = [] if self._known is None else list(self._known.get("ranges", []))
        mine = [self._run.start_index, self._run.start_index + self._run.count]
        self._write_manifest(sorted([*ranges, mine] if mine not in ranges else ranges))

    def abandon(self) -> None:
        """Leave the files: the manifest does not count them, and the same run can be repeated over them."""

    def _begin(self, chunk: Chunk) -> None:
        identity = {
            "model": str(chunk.model),
            "seed": chunk.seed,
            "numerics": chunk.numerics,
            "asked": dict(self._run.asked),
        }
        for key, value in identity.items():
            if self._known is not None and self._known.get(key) != value:
                raise self._other_run(f"{key} {self._known.get(key)}")
        self._identity = identity
        with writing(self._path):
            self._path.mkdir(exist_ok=True)
        self._write_manifest([] if self._known is None else self._known.get("ranges", []))

    def _read_manifest(self) -> Mapping[str, Any] | None:
        if not self._path.is_dir() or not any(self._path.iterdir()):
            return None
        try:
            manifest = json.loads((self._path / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._path} is not empty and has no {MANIFEST}; name another folder") from error
        if not isinstance(manifest, dict):
            raise OutputError(f"{self._path / MANIFEST} is not a manifest; name another folder")
        return manifest

    def _write_manifest(self, ranges: list[list[int]]) -> None:
        manifest = {**(self._identity or {}), "ranges": ranges}
        part = self._path / f".{MANIFEST}.part"
        with writing(self._path):
            part.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
            part.replace(self._path / MANIFEST)

    def _other_run(self, what: str) -> OutputError:
        return OutputError(f"{self._path} holds samples of another run ({what}); name another folder")
