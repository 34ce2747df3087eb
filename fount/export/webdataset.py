"""WebDataset: one tar file a part, in which the files of a row share a name: `000000012.png`, `.cls` and `.json`.

Times, owners and modes are fixed, so that equal rows make equal files. The head of a member is a template with its
name, size and checksum put in: the standard library takes longer for a head than zlib for a small picture.

Source: POSIX.1-1988, ustar interchange format.
"""

from __future__ import annotations

import json
import tarfile

from fount.export.png import deflated_pngs
from fount.export.table import Table, values_of

__all__ = ["encode_webdataset"]

_TEMPLATE = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_BETWEEN = _TEMPLATE[_NAME.stop : _SIZE.start], _TEMPLATE[_SIZE.stop : _CHECKSUM.start], _TEMPLATE[_CHECKSUM.stop :]
_BARE_SUM = sum(map(sum, _BETWEEN)) + sum(b" " * 8)  # as if the checksum were blanks, without name and size


def encode_webdataset(table: Table) -> bytes:
    """Make a tar file of a part: the picture, its class id, and every column by name."""
    names = list(table.columns)
    values = zip(*(values_of(table, name) for name in names), strict=True)
    pieces: list[bytes] = []
    for png, row in zip(deflated_pngs(table.images), values, strict=True):
        told = dict(zip(names, row, strict=True)) | {"class": table.contents.classes[row[names.index("label")]]}
        key = f"{told['index']:09d}"
        pieces += _member(f"{key}.png", png)
        pieces += _member(f"{key}.cls", str(told["label"]).encode())
        pieces += _member(f"{key}.json", json.dumps(told).encode())
    pieces.append(bytes(2 * tarfile.BLOCKSIZE))
    return b"".join(pieces)


def _member(name: str, data: bytes) -> list[bytes]:
    """A member of an ASCII name within 100 bytes, and less than 8 GiB."""
    named, size = name.encode("ascii"), b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (_BARE_SUM + sum(named) + sum(size))
    before, between, behind = _BETWEEN
    head = b"".join((named.ljust(_NAME.stop, b"\0"), before, size, between, checksum, behind))
    return [head, data, bytes(-len(data) % tarfile.BLOCKSIZE)]
