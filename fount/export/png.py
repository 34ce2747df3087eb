"""Encode many small images as PNG files at once, which is where an export spends its time.

`stored_pngs` does not compress: images of one shape then make files of one length, built as one array in a few passes,
for containers that compress by themselves. `deflated_pngs` compresses each image, at zlib's fastest level.

Source: PNG (Third Edition), W3C 2025, sections 5 and 10; RFC 1950 and RFC 1951, section 3.2.4 (stored blocks).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["deflated_pngs", "stored_pngs"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels: grey, grey with alpha, RGB, RGBA
_ZLIB_HEADER = b"\x78\x01"
_MAX_BLOCK = 65535  # bytes of a stored block
_COMPRESSION_LEVEL = 1


def stored_pngs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode images, (N, H, W, 1 to 4) uint8, as PNG files without compression: (N, L) uint8, one file per row."""
    lines = _filtered(images)
    before, after = _before_data(images.shape[1:]), _chunk(b"IEND", b"")
    blocks = range(0, lines.shape[1], _MAX_BLOCK)
    length = len(_ZLIB_HEADER) + 5 * len(blocks) + lines.shape[1] + 4
    files = np.empty((len(images), len(before) + 8 + length + 4 + len(after)), np.uint8)
    _put(files, 0, before + struct.pack(">I4s", length, b"IDAT") + _ZLIB_HEADER)
    at = len(before) + 8 + len(_ZLIB_HEADER)
    for start in blocks:
        block = lines[:, start : start + _MAX_BLOCK]
        size, is_last = block.shape[1], start + _MAX_BLOCK >= lines.shape[1]
        _put(files, at, struct.pack("<BHH", is_last, size, size ^ 0xFFFF))
        files[:, at + 5 : at + 5 + size] = block
        at += 5 + size
    files[:, at : at + 4] = _big_endian([zlib.adler32(line) for line in lines])
    files[:, at + 4 : at + 8] = _big_endian([zlib.crc32(file) for file in files[:, len(before) + 4 : at + 4]])
    _put(files, at + 8, after)
    return files


def deflated_pngs(images: NDArray[np.uint8]) -> list[bytes]:
    """Encode images, (N, H, W, 1 to 4) uint8, as compressed PNG files."""
    before, after = _before_data(images.shape[1:]), _chunk(b"IEND", b"")
    return [before + _chunk(b"IDAT", zlib.compress(line, _COMPRESSION_LEVEL)) + after for line in _filtered(images)]


def _filtered(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H (1 + W C)): the lines of each image, each preceded by the number of its filter, 0 for none."""
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
