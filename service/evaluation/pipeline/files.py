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
from collections.abc import Awaitable, Callable
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
    """A folder of files, created with the first file. Threads and processes may share it.

    Reading or making a file raises OSError if it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def arrays(self, name: str, make: Callable[[], Awaitable[Arrays]]) -> Arrays:
        """Return the arrays in a file, made and written if they are not there."""
        content = await asyncio.to_thread(self._read, name)
        if content is not None:
            return await asyncio.to_thread(_from_npz, content)
        made = await make()
        await asyncio.to_thread(lambda: self._write(name, _to_npz(made)))
        return made

    async def json(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The same for JSON; what was just made is returned as it would be read."""
        content = await asyncio.to_thread(self._read, name)
        if content is None:
            content = json.dumps(await make(), allow_nan=False).encode()
            await asyncio.to_thread(self._write, name, content)
        return json.loads(content)

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
        atomic_write(self.folder / name, data, durable=False, mode=0o600)


def _to_npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _from_npz(content: bytes) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return {each: found[each] for each in found.files}
