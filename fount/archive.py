"""Verify archives: that a packed model (`<name>-<version>.mar`) is complete, unchanged, and holds nothing else.

An archive is a zip file that TorchServe unpacks and runs, so its list, `archive.json`, gives the SHA-256 of every other
member and the ingredients of the model digest. The gateway's launcher verifies the file before it registers it; the
worker verifies the unpacked folder again. Only the standard library is used.

    MAR-INF/MANIFEST.json  what TorchServe reads      model.yaml, weights, golden   what is served
    model-config.yaml      one request a call         fount/, handlers/, entry.py   the code that runs it
    model.json             fount.v1.Model, so that a gateway can list it without a worker; absent in older archives
    archive.json           everything above, by digest

A zip describes its members twice: in a header before each member, which TorchServe's Java reads when it unpacks, and in
the directory at its end, which Python reads. A crafted file can make the two differ, so members must be stored without
compression and without gaps between them, and both descriptions must agree.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fount.files import open_regular
from fount.json_text import parse_json

__all__ = [
    "CONTENTS_FILE", "DESCRIPTION_FILE", "FORMAT", "MANIFEST_FILE", "MAX_TEXT_BYTES", "ArchiveContents", "ArchiveError",
    "ArchiveInfo", "digest_of_ingredients", "verify_archive", "verify_folder",
]  # fmt: skip

CONTENTS_FILE = "archive.json"
DESCRIPTION_FILE = "model.json"
MANIFEST_FILE = "MAR-INF/MANIFEST.json"
FORMAT = "fount-archive/1"
MAX_TEXT_BYTES = 64 * 2**20
"""The most bytes of a member that is parsed or compiled."""

_PACK_AGAIN = "pack the model again with `fount pack`"
_COPY_AGAIN = f"copy it again, or {_PACK_AGAIN}"
_DO_NOT_USE = f"do not use it, {_PACK_AGAIN}"

_MAX_TOTAL_BYTES = 4 * 2**30
_MAX_MEMBERS = 10_000
_TEXT_SUFFIXES = frozenset({".json", ".yaml", ".py"})

_NAME_IS_UTF8 = 0x800
_LOCAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x05\x06"
_LOCAL_HEADER = struct.Struct("<4s2xHH4xIIIHH")  # signature, flags, method, CRC, stored and full size, two lengths
_END_BYTES = 22
_ZIP64_EXTRA = struct.Struct("<HHQQ")  # tag, length, full and stored size
_ZIP64_TAG, _ZIP64_LENGTH, _IN_ZIP64 = 1, 16, 0xFFFFFFFF


_Open = Callable[[str], IO[bytes]]


class ArchiveError(Exception):
    """An archive is not as `fount pack` writes it. Pack the model again, or copy the file again."""


class _Problem(Exception):
    """What is wrong with an archive and what to do, without the archive's path."""


@dataclass(frozen=True, kw_only=True)
class ArchiveContents:
    """The list of a verified archive: `files` maps every other member to the digest of its bytes, "sha256:..."."""

    name: str
    version: str
    model_digest: str
    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ArchiveInfo:
    """A verified archive file.

    Attributes:
        archive_digest: of the file, in the form of `model_digest`, "sha256:...".
        description: fount.v1.Model as JSON; empty in older archives.
    """

    name: str
    version: str
    model_digest: str
    archive_digest: str
    size_bytes: int
    description: str = ""


def digest_of_ingredients(ingredients: Mapping[str, Any]) -> str:
    """Compute a model digest, "sha256:...": that of the canonical JSON of weights, config, source, noise and execution.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    canonical = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def verify_archive(path: Path) -> ArchiveInfo:
    """Verify that an archive is complete, unchanged, and holds nothing that its list does not name.

    Raises:
        ArchiveError: it is not; the message names the file, the member, what differs and the remedy.
    """
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            members = _check_members(archive)
            if CONTENTS_FILE in members:  # otherwise another tool's archive, which `_verify` reports
                _check_headers(archive, stream)
            contents = _verify(members, lambda name: archive.open(members[name]))
            description = archive.read(DESCRIPTION_FILE).decode() if DESCRIPTION_FILE in members else ""
            stream.seek(0)
            digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except _Problem as error:
        raise ArchiveError(f"{path}: {error}") from error
    # ValueError: a name or a number in the file that no tool writes.
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError) as error:
        with path.open("rb") as stream:
            is_zip = stream.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
        what = "is cut short or damaged" if is_zip else "is not a zip archive"
        raise ArchiveError(f"{path}: {what} ({error}); {_COPY_AGAIN}") from error
    return ArchiveInfo(
        name=contents.name,
        version=contents.version,
        model_digest=contents.model_digest,
        archive_digest=digest,
        size_bytes=path.stat().st_size,
        description=description,
    )


def verify_folder(folder: Path) -> ArchiveContents:
    """Verify an unpacked archive in the same way; `__pycache__` is Python's own and is ignored."""
    try:
        return _verify(_names_in(folder), partial(_open_in, folder))
    except OSError as error:
        raise ArchiveError(f"{folder}: cannot be read ({error}); check the path and its permissions") from error
    except _Problem as error:
        raise ArchiveError(f"{folder}: {error}") from error


def _names_in(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if (file.is_symlink() or not file.is_dir()) and "__pycache__" not in name.parts:
            yield name.as_posix()


def _open_in(folder: Path, name: str) -> IO[bytes]:
    file = folder / name
    if file.is_symlink() or not file.is_file():
        raise _Problem(f"{name} is not a regular file; {_PACK_AGAIN}")
    return file.open("rb")


def _verify(found_names: Iterable[str], open_member: _Open) -> ArchiveContents:
    names = set(found_names)
    if CONTENTS_FILE not in names:
        raise _Problem(f"has no {CONTENTS_FILE}, so it was not packed by `fount pack`; {_PACK_AGAIN}")
    document = _read_json(open_member, CONTENTS_FILE)
    contents = _read_contents(document)
    for name in sorted(contents.files.keys() - names):
        raise _Problem(f"{name} is missing; {_COPY_AGAIN}")
    for name in sorted(names - contents.files.keys() - {CONTENTS_FILE}):
        raise _Problem(f"{name} is not in its list; {_DO_NOT_USE}")
    for name, expected in contents.files.items():
        with open_member(name) as stream:
            found = "sha256:" + hashlib.file_digest(cast(BufferedIOBase, stream), "sha256").hexdigest()
        if found != expected:
            raise _Problem(f"{name} has {found}, its list says {expected}; {_COPY_AGAIN}")
    _check_model(document["model"], contents)
    _check_manifest(_read_json(open_member, MANIFEST_FILE), contents)
    return contents


def _read_json(open_member: _Open, name: str) -> dict[str, Any]:
    try:
        with open_member(name) as stream:
            document = parse_json(stream.read(MAX_TEXT_BYTES))
    except ValueError as error:
        raise _Problem(f"{name} is not JSON; {_PACK_AGAIN}") from error
    if not isinstance(document, dict):
        raise _Problem(f"{name} is not a JSON object; {_PACK_AGAIN}")
    return document


_FIELDS = {"name": str, "version": str, "model": dict, "model_digest": str, "files": dict}


def _read_contents(document: dict[str, Any]) -> ArchiveContents:
    if document.get("format") != FORMAT:
        raise _Problem(f"{CONTENTS_FILE} has format {document.get('format')!r}, not {FORMAT!r}; {_PACK_AGAIN}")
    wrong = [key for key, kind in _FIELDS.items() if not isinstance(document.get(key), kind)]
    if "files" not in wrong and not all(isinstance(digest, str) for digest in document["files"].values()):
        wrong.append("files")
    if wrong or MANIFEST_FILE not in document["files"]:
        raise _Problem(f"{CONTENTS_FILE} lacks {', '.join(wrong) or MANIFEST_FILE}; {_PACK_AGAIN}")
    return ArchiveContents(**{key: document[key] for key in ("name", "version", "model_digest", "files")})


def _check_model(ingredients: dict[str, Any], contents: ArchiveContents) -> None:
    try:
        found = digest_of_ingredients(ingredients)
    except (ValueError, RecursionError) as error:  # a number like 1e999, which JSON allows and no float holds
        raise _Problem(f"{CONTENTS_FILE}: ingredients have no digest ({error}); {_PACK_AGAIN}") from error
    if found != contents.model_digest:
        wrong = f"model_digest is {contents.model_digest}, its ingredients give {found}"
        raise _Problem(f"{CONTENTS_FILE}: {wrong}; {_PACK_AGAIN}")
    for ingredient in ("weights", "source"):
        if ingredients.get(ingredient) not in contents.files.values():
            wrong = f"no member has the digest of the ingredient {ingredient!r}"
            raise _Problem(f"{CONTENTS_FILE}: {wrong}; {_PACK_AGAIN}")


def _check_manifest(manifest: dict[str, Any], contents: ArchiveContents) -> None:
    model = manifest.get("model")
    found = (model.get("modelName"), model.get("modelVersion")) if isinstance(model, dict) else (None, None)
    if found != (contents.name, contents.version):
        wrong = f"says {found[0]} {found[1]}, {CONTENTS_FILE} says {contents.name} {contents.version}"
        raise _Problem(f"{MANIFEST_FILE} {wrong}; {_PACK_AGAIN}")


def _check_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Check members by their entries in the directory, before a byte is unpacked, and return them by name."""
    infos = archive.infolist()
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.orig_filename in members:
            raise _Problem(f"member {info.orig_filename!r} occurs twice; {_PACK_AGAIN}")
        members[info.orig_filename] = info
        if wrong := _check_member(info):
            raise _Problem(f"member {info.orig_filename!r} {wrong}; {_DO_NOT_USE}")
    if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > _MAX_TOTAL_BYTES:
        raise _Problem("unpacks to more than 10 000 members or 4 GiB; serve a smaller model")
    return members


def _check_member(info: zipfile.ZipInfo) -> str | None:
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    unusual = not name.isascii() or name != info.filename or set(name) & set("\\:\0")
    if unusual or name.startswith("/") or any(part in ("..", ".", "") for part in name.split("/")):
        return "is not a plain relative path"
    if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
        return "is a link, a device or encrypted"
    if PurePosixPath(name).suffix in _TEXT_SUFFIXES and info.file_size > MAX_TEXT_BYTES:
        return "unpacks to more than 64 MiB of text"
    return None


def _check_headers(archive: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Check that the headers before members describe those of the directory, with nothing between or after them."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset != end:
            raise _Problem(f"member {info.orig_filename!r} does not follow the one before; {_PACK_AGAIN}")
        stream.seek(end)
        end += _check_header(info, stream) + info.compress_size
    stream.seek(-_END_BYTES, 2)
    if end != archive.start_dir or not stream.read().startswith(_END_SIGNATURE):
        raise _Problem(f"has bytes that belong to no member; {_PACK_AGAIN}")


def _check_header(info: zipfile.ZipInfo, stream: IO[bytes]) -> int:
    """Compare the header at the stream's position with the directory's entry, and return the header's size."""
    member = f"member {info.orig_filename!r}"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise _Problem(f"{member} is not stored without compression; {_DO_NOT_USE}")
    header = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    signature, flags, method, crc, stored, full, name_length, extra_length = header
    name, extra = stream.read(name_length), stream.read(extra_length)
    found = (signature, flags, method, crc, name)
    due = (_LOCAL_SIGNATURE, info.flag_bits, info.compress_type, info.CRC, info.orig_filename.encode())
    sizes_agree = _read_sizes(full, stored, extra) == (info.file_size, info.compress_size)
    if found != due or flags & ~_NAME_IS_UTF8 or not sizes_agree:
        raise _Problem(f"{member} has a header that differs from the directory; {_DO_NOT_USE}")
    return _LOCAL_HEADER.size + len(name) + len(extra)


def _read_sizes(full: int, stored: int, extra: bytes) -> tuple[int, int] | None:
    """Return the full and the stored size of a header; None when its extra field holds anything but large sizes."""
    if not extra:
        return full, stored
    if len(extra) != _ZIP64_EXTRA.size or (full, stored) != (_IN_ZIP64, _IN_ZIP64):
        return None
    tag, length, large_full, large_stored = _ZIP64_EXTRA.unpack(extra)
    return (large_full, large_stored) if (tag, length) == (_ZIP64_TAG, _ZIP64_LENGTH) else None
