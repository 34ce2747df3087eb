"""Archives as zip files: whether every reader would find the same members in one.

A zip says twice what it holds: in a header before each member, by which TorchServe's Java unpacks, and in the directory
at its end, by which Python reads. A crafted file tells each another story. So members must be stored as they are, must
follow one another without a gap, and both places must say the same. Only the standard library is used, as in
`fount.archive`, which this file belongs to.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import PurePosixPath
from typing import IO

__all__ = ["MAX_TEXT_BYTES", "PACK_AGAIN", "ZipError", "check_headers", "check_members"]

MAX_TEXT_BYTES = 64 * 2**20
"""The most bytes of a member that is parsed or compiled."""

PACK_AGAIN = "pack the model again with `fount pack`"
"""The remedy for most of what can be wrong."""

_MAX_TOTAL_BYTES = 4 * 2**30
_MAX_MEMBERS = 10_000
_TEXT_SUFFIXES = frozenset({".json", ".yaml", ".py"})
_NAME_IS_UTF8 = 0x800
_LOCAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x05\x06"
_LOCAL_HEADER = struct.Struct("<4s2xHH4xIIIHH")  # signature, flags, method, CRC, stored and full size, two lengths
_END_BYTES = 22
_ZIP64_EXTRA = struct.Struct("<HHQQ")  # tag, length, full and stored size
_ZIP64_TAG, _ZIP64_LENGTH, _IN_ZIP64 = 1, 16, 0xFFFFFFFF


class ZipError(Exception):
    """A zip could be read in two ways, or not at all. The message says what to do."""


def check_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Refuse members by what the directory says of them, before a byte is unpacked.

    Returns:
        Members by name.

    Raises:
        ZipError: a member is there twice, is not a plain file with a plain path, or all are too large.
    """
    infos = archive.infolist()
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.orig_filename in members:
            raise ZipError(f"member {info.orig_filename!r} is there twice; {PACK_AGAIN}")
        members[info.orig_filename] = info
        if problem := _problem_of(info):
            raise ZipError(f"member {info.orig_filename!r} {problem}; do not use it, {PACK_AGAIN}")
    if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > _MAX_TOTAL_BYTES:
        raise ZipError("unpacks to more than 10 000 members or 4 GiB; serve a smaller model")
    return members


def check_headers(archive: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Make sure that readers by local headers find the members of the directory, and nothing between or after them.

    Args:
        archive: what the directory says.
        stream: the same file.

    Raises:
        ZipError: they would find others.
    """
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset != end:
            raise ZipError(f"member {info.orig_filename!r} does not follow the one before; {PACK_AGAIN}")
        stream.seek(end)
        end += _check_header(info, stream) + info.compress_size
    stream.seek(-_END_BYTES, 2)
    if end != archive.start_dir or not stream.read().startswith(_END_SIGNATURE):
        raise ZipError(f"has bytes that belong to no member; {PACK_AGAIN}")


def _problem_of(info: zipfile.ZipInfo) -> str | None:
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    odd = not name.isascii() or name != info.filename or set(name) & set("\\:\0")
    if odd or name.startswith("/") or any(part in ("..", ".", "") for part in name.split("/")):
        return "is not a plain relative path"
    if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
        return "is a link, a device or encrypted"
    if PurePosixPath(name).suffix in _TEXT_SUFFIXES and info.file_size > MAX_TEXT_BYTES:
        return "unpacks to more than 64 MiB of text"
    return None


def _check_header(info: zipfile.ZipInfo, stream: IO[bytes]) -> int:
    """Compare the header at the stream's place with the directory's entry.

    Returns:
        The bytes of the header.
    """
    member = f"member {info.orig_filename!r}"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ZipError(f"{member} is not stored as it is; do not use it, {PACK_AGAIN}")
    header = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    signature, flags, method, crc, stored, full, name_length, extra_length = header
    name, extra = stream.read(name_length), stream.read(extra_length)
    found = (signature, flags, method, crc, name)
    due = (_LOCAL_SIGNATURE, info.flag_bits, info.compress_type, info.CRC, info.orig_filename.encode())
    sizes_agree = _read_sizes(full, stored, extra) == (info.file_size, info.compress_size)
    if found != due or flags & ~_NAME_IS_UTF8 or not sizes_agree:
        raise ZipError(f"{member} has a header that is not what the directory says; do not use it, {PACK_AGAIN}")
    return _LOCAL_HEADER.size + len(name) + len(extra)


def _read_sizes(full: int, stored: int, extra: bytes) -> tuple[int, int] | None:
    """Read the full and the stored size of a header; None when its extra field holds anything but large sizes."""
    if not extra:
        return full, stored
    if len(extra) != _ZIP64_EXTRA.size or (full, stored) != (_IN_ZIP64, _IN_ZIP64):
        return None
    tag, length, large_full, large_stored = _ZIP64_EXTRA.unpack(extra)
    return (large_full, large_stored) if (tag, length) == (_ZIP64_TAG, _ZIP64_LENGTH) else None
