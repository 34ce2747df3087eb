"""Files that steps leave: arrays as npz without pickle, everything else as JSON, each with a checksum.

A missing or damaged file reads as None and is made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import shutil
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.files import atomic_write

__all__ = ["Arrays", "StepFiles"]

_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


class StepFiles:
    """A folder of files, created with the first file. Threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def arrays(self, name: str, make: Callable[[], Awaitable[Arrays]]) -> Arrays:
        """Return the arrays in a file, made and written if they are not there.

        Raises:
            OSError: the file could not be written.
        """
        found = await asyncio.to_thread(self.read_arrays, name)
        if found is None:
            found = await make()
            await asyncio.to_thread(self.write_arrays, name, found)
        return found

    async def json(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The same for JSON; what was just made is returned as it would be read."""
        found = await asyncio.to_thread(self._read, name)
        if found is None:
            found = json.dumps(await make(), allow_nan=False).encode()
            await asyncio.to_thread(self._write, name, found)
        return json.loads(found)

    def read_arrays(self, name: str) -> Arrays | None:
        """Read arrays by name; None: the file is missing or damaged."""
        content = self._read(name)
        if content is None:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                return {each: found[each] for each in found.files}
        except (ValueError, zipfile.BadZipFile, OSError):
            return None

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays.

        Raises:
            OSError: the file could not be written.
        """
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(name, buffer.getvalue())

    def remove(self) -> None:
        """Remove the folder with all its files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> bytes | None:
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            return None
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            _log.warning("%s is damaged, and is made again", self.folder / name)
            return None
        return content

    def _write(self, name: str, content: bytes) -> None:
        data = hashlib.sha256(content).digest() + content
        try:
            self._put(name, data)
        except FileNotFoundError:  # another process removed the folder at this moment
            self._put(name, data)

    def _put(self, name: str, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write(self.folder / name, data, durable=False)
