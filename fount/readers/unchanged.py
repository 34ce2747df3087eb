"""Files that are read again and again, and must stay what they were.

A plan promises the same bytes for a row always, and its ticket pins the digest of what was read first; so a file that
was changed since is refused rather than read. It also keeps a shortened file that is mapped into memory from being
touched beyond its end, which would end the process.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fount.readers.dataset import DataError

__all__ = ["ArrayPixels", "FileStamp"]


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """A file as it was when it was read first.

    Attributes:
        file: where it is.
        size: in bytes.
        modified_ns: when it was last written to.
    """

    file: Path
    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """Note what a file is now.

        Raises:
            DataError: it cannot be seen, or is no ordinary file.
        """
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(
                f"{file} cannot be read: {error.strerror or error}; check its path and permissions"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{file} is no file; name a file")
        return cls(file=file, size=found.st_size, modified_ns=found.st_mtime_ns)

    def check(self) -> None:
        """Make sure that it is what it was.

        Raises:
            DataError: it was changed, or is gone.
        """
        if FileStamp.of(self.file) != self:
            raise DataError(f"{self.file} was changed after it was read; put it back, or restart what reads it")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPixels:
    """Images that are an array, in memory or mapped into it.

    Attributes:
        array: (n, H, W, C) uint8.
        stamp: the file it is mapped from; None: it is in memory.
    """

    array: NDArray[np.uint8]
    stamp: FileStamp | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read rows; (k, H, W, C) uint8."""
        if self.stamp is not None:
            self.stamp.check()
        return np.asarray(self.array[rows])
