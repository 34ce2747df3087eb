"""IDX, the format MNIST is distributed in: a magic number, the dimensions, then bytes; plain or inside gzip.

The header says how much must follow, so no more than that and one byte is ever decompressed: a small file that unfolds
into gigabytes is refused by its header or by its first surplus byte.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from handlers.recipes.data_set import DataError

__all__ = ["IDX_MOST_BYTES", "read_idx"]

IDX_MOST_BYTES = 2**28
"""Values that one file may announce: five times MNIST."""

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one file of unsigned bytes.

    Args:
        file: plain or gzip, told apart by content.
        dimensions: how many it must have: 3 for images, 1 for labels.

    Returns:
        uint8 of the shape its header says.

    Raises:
        DataError: it cannot be read, is no such IDX file, or holds fewer or more bytes than its header announces.
    """
    try:
        with _open(file) as stream:
            shape = _read_header(file, stream, dimensions)
            size = math.prod(shape)
            data = stream.read(size + 1)  # the byte too many also makes gzip verify its checksum
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is a damaged gzip file ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}; check its permissions") from error
    if len(data) != size:
        what = "ends early" if len(data) < size else "goes on after its end"
        told = f"its header announces {' × '.join(map(str, shape))} bytes"
        raise DataError(f"{file} {what}: {told}, {'more' if len(data) > size else len(data)} follow; download it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _open(file: Path) -> IO[bytes]:
    with file.open("rb") as stream:
        packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(file) if packed else file.open("rb")  # type: ignore[return-value]  # read() is all we need


def _read_header(file: Path, stream: IO[bytes], dimensions: int) -> tuple[int, ...]:
    """Read the magic number and the dimensions.

    Magic is 0, 0, the element type, the number of dimensions; each dimension is a big-endian 32-bit number.
    """
    wanted = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != wanted:
        raise DataError(
            f"{file} begins with {header[:4].hex(' ') or 'nothing'}; an IDX file of bytes with {dimensions} dimension"
            f"{'s' * (dimensions > 1)} begins with {wanted.hex(' ')}; put the right file there"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{file} ends within its header; download it again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if math.prod(shape) > IDX_MOST_BYTES:
        told = f"announces {' × '.join(map(str, shape))} bytes, more than the {IDX_MOST_BYTES} that are read"
        raise DataError(f"{file} {told}; put the right file there")
    return shape
