"""Archives: what a packed model (`<name>-<version>.mar`) must hold, and the proof that it does.

An archive is a plain zip which TorchServe unpacks and runs, so nothing may be in it that its list does not name:
`archive.json` gives the SHA-256 of every other member and the ingredients of the model digest. A gateway's launcher
verifies the file before it is registered; the worker verifies the unpacked folder once more. Only the standard library
is used: the launcher has no torch, and the worker has no client.

    MAR-INF/MANIFEST.json  what TorchServe reads      model.yaml, weights, golden   what is served
    model-config.yaml      one request a call         fount/, handlers/, entry.py   what runs it
    archive.json           everything above, by digest
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, Protocol

__all__ = [
    "CONTENTS_FILE",
    "FORMAT",
    "MANIFEST_FILE",
    "MAX_TEXT_BYTES",
    "PACK_AGAIN",
    "ArchiveContents",
    "ArchiveError",
    "ArchiveInfo",
    "ZipError",
    "check_headers",
    "check_members",
    "digest_of_ingredients",
    "verify_archive",
    "verify_folder",
]


CONTENTS_FILE = "archive.json"
MANIFEST_FILE = "MAR-INF/MANIFEST.json"
FORMAT = "fount-archive/1"

_BLOCK_BYTES = 2**20


class ArchiveError(Exception):
    """An archive is not what `fount pack` writes. Pack the model again, or copy the file again."""


@dataclass(frozen=True, kw_only=True)
class ArchiveContents:
    """What a verified archive says of itself.

    Attributes:
        name: the model's name.
        version: the model's version.
        model_digest: "sha256:" and 64 hexadecimal digits.
        files: member path to "sha256:..." of its bytes; every member but archive.json.
    """

    name: str
    version: str
    model_digest: str
    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ArchiveInfo:
    """A verified archive file.

    Attributes:
        name: the model's name.
        version: the model's version.
        model_digest: names what is served; "sha256:" and 64 hexadecimal digits.
        archive_digest: SHA-256 of the file itself, in the same form.
        size_bytes: the file's size.
    """

    name: str
    version: str
    model_digest: str
    archive_digest: str
    size_bytes: int


def digest_of_ingredients(ingredients: Mapping[str, Any]) -> str:
    """Name a model by its ingredients: SHA-256 of their canonical JSON.

    Args:
        ingredients: weights, config, source, noise and execution.

    Returns:
        "sha256:" and 64 hexadecimal digits.

    Raises:
        ValueError: one is NaN or infinite.
    """
    canonical = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def verify_archive(path: Path) -> ArchiveInfo:
    """Prove that an archive is whole, unchanged, and made of nothing but what its list names.

    Raises:
        ArchiveError: it is not; one sentence names the file, the member, what differs and the remedy.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            members = check_members(archive)
            if CONTENTS_FILE in members:  # else it is another tool's, which is the better thing to say
                check_headers(archive, stream)
            contents = _verify(path, _ZipSource(path=path, archive=archive, members=members))
            stream.seek(0)
            digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except ZipError as error:
        raise ArchiveError(f"{path}: {error}") from error
    # ValueError: a name or a number in the file that nobody would write.
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{path}: {_what_is_broken(path)} ({error}); copy it again, or {PACK_AGAIN}") from error
    return ArchiveInfo(
        name=contents.name,
        version=contents.version,
        model_digest=contents.model_digest,
        archive_digest=digest,
        size_bytes=path.stat().st_size,
    )


def verify_folder(folder: Path) -> ArchiveContents:
    """Prove the same of an unpacked archive; `__pycache__` is Python's own and is passed over.

    Raises:
        ArchiveError: the folder is not the archive it says it is.
    """
    try:
        return _verify(folder, _FolderSource(folder=folder))
    except OSError as error:
        raise ArchiveError(f"{folder}: cannot be read ({error}); check the path and its permissions") from error


class _Source(Protocol):
    def names(self) -> list[str]: ...

    def open(self, name: str) -> IO[bytes]: ...


@dataclass(frozen=True, kw_only=True)
class _ZipSource:
    path: Path
    archive: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]

    def names(self) -> list[str]:
        return list(self.members)

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self.members[name])


@dataclass(frozen=True, kw_only=True)
class _FolderSource:
    folder: Path

    def names(self) -> list[str]:
        files = (file for file in self.folder.rglob("*") if not file.is_dir() or file.is_symlink())
        found = [file.relative_to(self.folder) for file in files]
        return [file.as_posix() for file in found if "__pycache__" not in file.parts]

    def open(self, name: str) -> IO[bytes]:
        file = self.folder / name
        if file.is_symlink() or not file.is_file():
            raise ArchiveError(f"{self.folder}: {name} is not a regular file; {PACK_AGAIN}")
        return file.open("rb")


def _verify(where: Path, source: _Source) -> ArchiveContents:
    names = set(source.names())
    if CONTENTS_FILE not in names:
        raise ArchiveError(f"{where}: has no {CONTENTS_FILE}, so it was not packed by `fount pack`; {PACK_AGAIN}")
    document = _read_json(where, source, CONTENTS_FILE)
    contents = _read_contents(where, document)
    _compare_names(where, set(contents.files), names - {CONTENTS_FILE})
    for name, expected in contents.files.items():
        if (found := _digest(source, name)) != expected:
            wrong = f"{name} has {found}, its list says {expected}"
            raise ArchiveError(f"{where}: {wrong}; copy it again, or {PACK_AGAIN}")
    _check_model(where, document["model"], contents)
    _check_manifest(where, _read_json(where, source, MANIFEST_FILE), contents)
    return contents


def _read_json(where: Path, source: _Source, name: str) -> dict[str, Any]:
    try:
        with source.open(name) as stream:
            document = json.loads(stream.read(MAX_TEXT_BYTES), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where}: {name} is not JSON; {PACK_AGAIN}") from error
    if not isinstance(document, dict):
        raise ArchiveError(f"{where}: {name} is not a JSON object; {PACK_AGAIN}")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "name": lambda value: isinstance(value, str),
    "version": lambda value: isinstance(value, str),
    "model": lambda value: isinstance(value, dict),
    "model_digest": lambda value: isinstance(value, str),
    "files": lambda value: isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values()),
}


def _read_contents(where: Path, document: dict[str, Any]) -> ArchiveContents:
    if document.get("format") != FORMAT:
        found = document.get("format")
        raise ArchiveError(f"{where}: {CONTENTS_FILE} has format {found!r}, not {FORMAT!r}; {PACK_AGAIN}")
    wrong = [key for key, holds in _FIELDS.items() if not holds(document.get(key))]
    if wrong or MANIFEST_FILE not in document["files"]:
        raise ArchiveError(f"{where}: {CONTENTS_FILE} lacks {', '.join(wrong) or MANIFEST_FILE}; {PACK_AGAIN}")
    return ArchiveContents(
        name=document["name"],
        version=document["version"],
        model_digest=document["model_digest"],
        files=document["files"],
    )


def _compare_names(where: Path, expected: set[str], found: set[str]) -> None:
    for name in sorted(expected - found):
        raise ArchiveError(f"{where}: {name} is missing; copy it again, or {PACK_AGAIN}")
    for name in sorted(found - expected):
        raise ArchiveError(f"{where}: {name} is not in its list; do not use it, {PACK_AGAIN}")


def _check_model(where: Path, ingredients: dict[str, Any], contents: ArchiveContents) -> None:
    try:
        found = digest_of_ingredients(ingredients)
    except (ValueError, RecursionError) as error:  # a number like 1e999, which JSON allows and no float holds
        raise ArchiveError(f"{where}: {CONTENTS_FILE}: ingredients have no digest ({error}); {PACK_AGAIN}") from error
    if found != contents.model_digest:
        wrong = f"model_digest is {contents.model_digest}, its ingredients give {found}"
        raise ArchiveError(f"{where}: {CONTENTS_FILE}: {wrong}; {PACK_AGAIN}")
    for ingredient in ("weights", "source"):
        if ingredients.get(ingredient) not in contents.files.values():
            wrong = f"no member has the digest of the ingredient {ingredient!r}"
            raise ArchiveError(f"{where}: {CONTENTS_FILE}: {wrong}; {PACK_AGAIN}")


def _check_manifest(where: Path, manifest: dict[str, Any], contents: ArchiveContents) -> None:
    model = manifest.get("model")
    told = (model.get("modelName"), model.get("modelVersion")) if isinstance(model, dict) else (None, None)
    if told != (contents.name, contents.version):
        wrong = f"says {told[0]} {told[1]}, {CONTENTS_FILE} says {contents.name} {contents.version}"
        raise ArchiveError(f"{where}: {MANIFEST_FILE} {wrong}; {PACK_AGAIN}")


def _digest(source: _Source, name: str) -> str:
    digest = hashlib.sha256()
    with source.open(name) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def _what_is_broken(path: Path) -> str:
    with path.open("rb") as stream:
        return "is cut short or damaged" if stream.read(4) == b"PK\x03\x04" else "is not a zip archive"


# FOLDED FROM fount.archive:
# Archives as zip files: whether every reader would find the same members in one. A zip says twice what it
# holds: in a header before each member, by which TorchServe's Java unpacks, and in the directory at its end, by
# which Python reads. A crafted file tells each another story. So members must be stored as they are, must
# follow one another without a gap, and both places must say the same. Only the standard library is used, as in
# `fount.archive`, which this file belongs to.


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
