"""Files that steps leave: whole, with a checksum, or not at all.

Arrays are npz without pickle, everything else JSON. A file that is missing or damaged reads as None, and is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Files"]

_log = logging.getLogger(__name__)

_DIGEST_BYTES = 32

Arrays = dict[str, NDArray[Any]]


class Files:
    """A folder of them, made when the first is written. Any thread may call; several processes may share it.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def arrays(self, name: str, make: Callable[[], Awaitable[Arrays]]) -> Arrays:
        """What a step left, made if it is not there.

        Raises:
            OSError: it could not be written.
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
        """Arrays by name; None: there are none, or they are damaged."""
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
            OSError: they could not be written.
        """
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(name, buffer.getvalue())

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
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

    def _put(self, part: Path, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("wb") as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
        part.replace(self.folder / name)

    def _write(self, name: str, content: bytes) -> None:
        part = self.folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.part"
        try:
            self._put(part, name, content)
        except FileNotFoundError:  # somebody tidied the folder away at this moment
            self._put(part, name, content)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
