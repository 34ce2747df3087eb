"""A folder for each class, a PNG file for each row, and a line for each in `rows.csv`.

Class names come from a server: only what is safe in a file's name is kept of them.
"""

from __future__ import annotations

import csv
import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.export.table import Contents, Table, values_of

__all__ = ["deflated_pngs", "encode_folder", "folder_names", "heading_line", "stored_pngs"]


_LONGEST_NAME = 64


def encode_folder(table: Table, save: Callable[[str, bytes], None]) -> bytes:
    """Save the files of a part, and give their lines of `rows.csv`.

    Args:
        table: the rows.
        save: writes a file: its path under the folder of the data, and its bytes.
    """
    folders = folder_names(table.contents.classes)
    values = zip(*(values_of(table, name) for name in table.columns), strict=True)
    labels, indices = table.columns["label"].tolist(), table.columns["index"].tolist()
    lines: list[list[Any]] = []
    for png, label, index, row in zip(deflated_pngs(table.images), labels, indices, values, strict=True):
        path = f"{folders[label]}/{index:09d}.png"
        save(path, png)
        lines.append([path, hashlib.sha256(png).hexdigest(), table.contents.classes[label], *row])
    return _as_csv(lines)


def heading_line(contents: Contents) -> bytes:
    """The first line of `rows.csv`."""
    return _as_csv([["file", "sha256", "class", *contents.columns()]])


def folder_names(classes: Sequence[str]) -> list[str]:
    """Name the folder of each class: by its name, as far as that is safe, and no two alike.

    Args:
        classes: class names by id, as a server sent them.

    Returns:
        ASCII letters, digits, "-", "_" and "." alone, never beginning with "."; with the id behind where a name was
        changed or is taken.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label, name in enumerate(classes):
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip(".-")[:_LONGEST_NAME].rstrip(".") or "class"
        while safe.lower() in taken or (safe != name and not safe.endswith(f"_{label}")):
            safe = f"{safe}_{label}"
        taken.add(safe.lower())
        names.append(safe)
    return names


def _as_csv(lines: Sequence[Sequence[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


# FOLDED FROM fount.export.folder:
# PNG files of many small pictures at once. Encoding is what an export spends its time on. `stored_pngs` does
# not compress: pictures of one shape then make files of one length, built as one array in a few passes, for
# containers that compress by themselves. `deflated_pngs` compresses each by itself, lightly. Source: PNG (Third
# Edition), W3C 2025, sections 5 and 10; RFC 1950 and RFC 1951, section 3.2.4 (stored blocks).


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey with alpha, RGB, RGBA
_ZLIB_HEADER = b"\x78\x01"
_LARGEST_BLOCK = 65535  # bytes of a stored block
_LIGHTLY = 1  # zlib's level


def stored_pngs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a PNG file of each picture, without compression.

    Args:
        images: (N, H, W, C) uint8, C 1 to 4: grey, grey with alpha, RGB, RGBA.

    Returns:
        (N, L) uint8: one whole file a row.
    """
    lines = _filtered(images)
    before, after = _before_data(images.shape[1:]), _chunk(b"IEND", b"")
    blocks = range(0, lines.shape[1], _LARGEST_BLOCK)
    length = len(_ZLIB_HEADER) + 5 * len(blocks) + lines.shape[1] + 4
    files = np.empty((len(images), len(before) + 8 + length + 4 + len(after)), np.uint8)
    _put(files, 0, before + struct.pack(">I4s", length, b"IDAT") + _ZLIB_HEADER)
    at = len(before) + 8 + len(_ZLIB_HEADER)
    for start in blocks:
        block = lines[:, start : start + _LARGEST_BLOCK]
        size, is_last = block.shape[1], start + _LARGEST_BLOCK >= lines.shape[1]
        _put(files, at, struct.pack("<BHH", is_last, size, size ^ 0xFFFF))
        files[:, at + 5 : at + 5 + size] = block
        at += 5 + size
    files[:, at : at + 4] = _big_endian([zlib.adler32(line) for line in lines])
    files[:, at + 4 : at + 8] = _big_endian([zlib.crc32(file) for file in files[:, len(before) + 4 : at + 4]])
    _put(files, at + 8, after)
    return files


def deflated_pngs(images: NDArray[np.uint8]) -> list[bytes]:
    """Make a PNG file of each picture, lightly compressed.

    Args:
        images: (N, H, W, C) uint8, C 1 to 4.
    """
    before, after = _before_data(images.shape[1:]), _chunk(b"IEND", b"")
    return [before + _chunk(b"IDAT", zlib.compress(line, _LIGHTLY)) + after for line in _filtered(images)]


def _filtered(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H (1 + W C)): the lines of each picture, each behind the number of its filter, none."""
    n, height, width, channels = images.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)
    lines[:, :, 1:] = images.reshape(n, height, width * channels)
    return lines.reshape(n, height * (1 + width * channels))


def _before_data(shape: tuple[int, ...]) -> bytes:
    height, width, channels = shape
    return _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _put(files: NDArray[np.uint8], at: int, constant: bytes) -> None:
    files[:, at : at + len(constant)] = np.frombuffer(constant, np.uint8)


def _big_endian(checksums: list[int]) -> NDArray[np.uint8]:
    return np.array(checksums, ">u4").view(np.uint8).reshape(-1, 4)  # (N, 4)
