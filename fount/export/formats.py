"""The file formats of an export: Parquet, WebDataset, NPZ and class folders; how each names and encodes its files.

The `Table` of a part enters; the bytes of its file leave. Equal rows give equal bytes: times, owners and modes in
archives are fixed.

Source: POSIX.1-1988, ustar interchange format; Hugging Face `datasets`, `Image` and `ClassLabel` features; PNG (Third
Edition), W3C 2025, sections 5 and 10; RFC 1950 and RFC 1951, section 3.2.4 (stored blocks).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fount.errors import MissingExtra
from fount.export.table import Table, TableSchema
from fount.names import normal_name
from fount.readers.layout import is_ignored

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DATA", "FORMATS", "Format", "class_folder_names", "csv_header", "deflated_pngs", "stored_pngs", "to_csv"]

DATA = "data"
"""The folder in an export that holds its rows."""

_MAX_FOLDER_BYTES = 200  # file systems hold 255, and an id may follow
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names of devices on Windows
_ROWS_PER_GROUP = 2000  # of Parquet
_COMPRESSION, _COMPRESSION_LEVEL = "zstd", -5  # as fast as snappy, and smaller
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip archive

_Save = Callable[[str, bytes], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format.

    Attributes:
        name: the value of --format.
        suffix: of its files; empty when each row is a separate file, and a part is the list of them.
        encode: makes the file of a part; its second argument saves the files of single rows.
        requires: a package that is not always installed; None: none.
    """

    name: str
    suffix: str
    encode: Callable[[Table, _Save], bytes]
    requires: str | None = None

    def check_installed(self) -> None:
        """Import the package the format requires; a MissingExtra is raised if it is not installed."""
        if self.requires is None:
            return
        try:
            import_module(self.requires)
        except ModuleNotFoundError as error:
            raise MissingExtra.of(command="pull", extra=self.name, missing=self.requires) from error

    def file_of(self, number: int, parts: int, split: str) -> str:
        """Name the file of a part as Hugging Face expects it: "data/train-00003-of-00010.parquet", with the split."""
        if not self.suffix:
            return f".fount/rows/{number:05d}.csv"
        return f"{DATA}/{split}-{number:05d}-of-{parts:05d}{self.suffix}"


# --- PNG --------------------------------------------------------------------------------------------------------------

# An export spends its time on encoding images. Images of one shape, stored without compression, make files of one
# length, which are built as one array in a few passes, for a container that compresses by itself.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels: grey, grey with alpha, RGB, RGBA
_ZLIB_HEADER = b"\x78\x01"
_MAX_STORED_BLOCK = 65535  # bytes of a stored block
_PNG_LEVEL = 1


def stored_pngs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode images, (N, H, W, 1 to 4) uint8, as PNG files without compression: (N, L) uint8, one file per row."""
    lines = _scan_lines(images)
    before, after = _png_header(images.shape[1:]), _png_chunk(b"IEND", b"")
    blocks = range(0, lines.shape[1], _MAX_STORED_BLOCK)
    length = len(_ZLIB_HEADER) + 5 * len(blocks) + lines.shape[1] + 4
    files = np.empty((len(images), len(before) + 8 + length + 4 + len(after)), np.uint8)
    _put(files, 0, before + struct.pack(">I4s", length, b"IDAT") + _ZLIB_HEADER)
    at = len(before) + 8 + len(_ZLIB_HEADER)
    for start in blocks:
        block = lines[:, start : start + _MAX_STORED_BLOCK]
        size, is_last = block.shape[1], start + _MAX_STORED_BLOCK >= lines.shape[1]
        _put(files, at, struct.pack("<BHH", is_last, size, size ^ 0xFFFF))
        files[:, at + 5 : at + 5 + size] = block
        at += 5 + size
    files[:, at : at + 4] = _big_endian([zlib.adler32(line) for line in lines])
    files[:, at + 4 : at + 8] = _big_endian([zlib.crc32(file) for file in files[:, len(before) + 4 : at + 4]])
    _put(files, at + 8, after)
    return files


def deflated_pngs(images: NDArray[np.uint8]) -> list[bytes]:
    """Encode images, (N, H, W, 1 to 4) uint8, as compressed PNG files."""
    before, after = _png_header(images.shape[1:]), _png_chunk(b"IEND", b"")
    return [before + _png_chunk(b"IDAT", zlib.compress(line, _PNG_LEVEL)) + after for line in _scan_lines(images)]


def _scan_lines(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H (1 + W C)): the lines of each image, each preceded by the number of its filter, 0 for none."""
    n, height, width, channels = images.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)
    lines[:, :, 1:] = images.reshape(n, height, width * channels)
    return lines.reshape(n, height * (1 + width * channels))


def _png_header(shape: tuple[int, ...]) -> bytes:
    height, width, channels = shape
    fields = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return _PNG_SIGNATURE + _png_chunk(b"IHDR", fields)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _put(files: NDArray[np.uint8], at: int, constant: bytes) -> None:
    files[:, at : at + len(constant)] = np.frombuffer(constant, np.uint8)


def _big_endian(checksums: list[int]) -> NDArray[np.uint8]:
    return np.array(checksums, ">u4").view(np.uint8).reshape(-1, 4)  # (N, 4)


# --- NPZ --------------------------------------------------------------------------------------------------------------


def _encode_npz(table: Table, _: _Save) -> bytes:
    """Make an NPZ file of a part: `images`, the columns as in `TableSchema.columns`, and the names of the ids."""
    arrays: dict[str, NDArray[Any]] = {"images": table.images, **table.columns}
    arrays["classes"] = np.array(table.schema.classes, np.str_)
    if table.schema.groups:
        arrays["groups"] = np.array(table.schema.groups, np.str_)
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()


# --- WebDataset -------------------------------------------------------------------------------------------------------

# A member's header is a template with name, size and checksum put in: the standard library needs longer for a header
# than zlib for a small image.
_TAR_TEMPLATE = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_BEFORE_SIZE = _TAR_TEMPLATE[_NAME.stop : _SIZE.start]
_BEFORE_CHECKSUM = _TAR_TEMPLATE[_SIZE.stop : _CHECKSUM.start]
_AFTER_CHECKSUM = _TAR_TEMPLATE[_CHECKSUM.stop :]
_TEMPLATE_SUM = sum(map(sum, (_BEFORE_SIZE, _BEFORE_CHECKSUM, _AFTER_CHECKSUM))) + sum(b" " * 8)  # blank checksum


def _encode_webdataset(table: Table, _: _Save) -> bytes:
    """Make a tar file of a part; a row is KEY.png, KEY.cls with its class id, KEY.json with columns and names."""
    names = list(table.columns)
    rows, groups = zip(*(table.values(name) for name in names), strict=True), table.group_names()
    pieces: list[bytes] = []
    for k, (png, row) in enumerate(zip(deflated_pngs(table.images), rows, strict=True)):
        values = dict(zip(names, row, strict=True))
        values["class"] = table.schema.classes[values["label"]]
        if table.schema.groups:
            values["group_name"] = groups[k]
        key = f"{values['index']:09d}"
        pieces += _tar_member(f"{key}.png", png)
        pieces += _tar_member(f"{key}.cls", str(values["label"]).encode())
        pieces += _tar_member(f"{key}.json", json.dumps(values).encode())
    pieces.append(bytes(2 * tarfile.BLOCKSIZE))
    return b"".join(pieces)


def _tar_member(name: str, data: bytes) -> list[bytes]:
    """Make a member with an ASCII name within 100 bytes, and less than 8 GiB."""
    encoded, size = name.encode("ascii"), b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (_TEMPLATE_SUM + sum(encoded) + sum(size))
    header = (encoded.ljust(_NAME.stop, b"\0"), _BEFORE_SIZE, size, _BEFORE_CHECKSUM, checksum, _AFTER_CHECKSUM)
    return [b"".join(header), data, bytes(-len(data) % tarfile.BLOCKSIZE)]


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _encode_parquet(table: Table, _: _Save) -> bytes:
    """Make a Parquet file of a part, with images as Hugging Face `datasets` reads them: structs of PNG bytes and path.

    The features in the schema's metadata make `load_dataset` return images and class names rather than structs and
    numbers. The PNG files are stored and Parquet compresses the column: faster and smaller than compressing each file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = _parquet_schema(table.schema)
    arrays = [_image_column(table.images), *(_array(table, name, schema.field(name).type) for name in table.columns)]
    sink = BytesIO()
    with parquet.ParquetWriter(
        sink,
        schema,
        compression=_COMPRESSION,
        compression_level=_COMPRESSION_LEVEL,
        use_dictionary=["source"] if "source" in table.columns else False,
        write_statistics=list(table.columns),
    ) as writer:
        if len(table):  # `datasets` cannot read a row group without rows, only a file without row groups
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROWS_PER_GROUP)
    return sink.getvalue()


def _parquet_schema(schema: TableSchema) -> pa.Schema:
    import pyarrow as pa

    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name, kind in schema.columns().items():
        fields.append((name, pa.string() if name == "source" else pa.from_numpy_dtype(kind)))
        features[name] = _feature(name, kind, schema)
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(name: str, kind: np.dtype[Any], schema: TableSchema) -> dict[str, Any]:
    names = {"label": schema.classes, "group": schema.groups}.get(name)
    if names is not None:
        return {"names": list(names), "_type": "ClassLabel"}
    return {"dtype": "string" if name == "source" else kind.name, "_type": "Value"}


def _array(table: Table, name: str, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    column = table.columns[name]
    if column.dtype.kind == "f":
        return pa.array(column, kind, from_pandas=True)  # NaN is null
    if column.dtype.kind == "u" and name != "source":
        return pa.array(column, kind)
    return pa.array(table.values(name), kind)


def _image_column(images: NDArray[np.uint8]) -> pa.Array:
    """Make the struct column; all files have one length, so the offsets are multiples of it."""
    import pyarrow as pa

    files = stored_pngs(images)
    offsets = np.arange(len(files) + 1, dtype=np.int32) * np.int32(files.shape[1])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(files.reshape(-1))]
    data = pa.Array.from_buffers(pa.binary(), len(files), buffers)
    paths = pa.nulls(len(files), pa.string())
    return pa.StructArray.from_arrays([data, paths], ["bytes", "path"])


# --- Class folders ----------------------------------------------------------------------------------------------------


def _encode_folder(table: Table, save: _Save) -> bytes:
    """Save a PNG file per row in the folder of its class, and return the part's lines of `rows.csv`."""
    schema, folders = table.schema, class_folder_names(table.schema.classes)
    rows = zip(*(table.values(name) for name in table.columns), strict=True)
    labels, indices, groups = table.columns["label"].tolist(), table.columns["index"].tolist(), table.group_names()
    lines: list[list[Any]] = []
    for k, (png, label, index, row) in enumerate(zip(deflated_pngs(table.images), labels, indices, rows, strict=True)):
        path = f"{folders[label]}/{index:09d}.png"
        save(path, png)
        names = [schema.classes[label], *([groups[k]] if schema.groups else [])]
        lines.append([path, hashlib.sha256(png).hexdigest(), *names, *row])
    return to_csv(lines)


def csv_header(schema: TableSchema) -> bytes:
    """Return the first line of `rows.csv`."""
    return to_csv([["file", "sha256", "class", *(["group_name"] if schema.groups else []), *schema.columns()]])


def class_folder_names(classes: Sequence[str]) -> list[str]:
    """Name the folder of each class, given untrusted class names by id: names any file system holds, all different.

    A name is kept, in NFC, unless it is a path, hidden, reserved, too long or has characters that some system refuses;
    the id follows where a class name was changed or is taken, with or without case.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label, name in enumerate(map(normal_name, classes)):
        safe = "".join("-" if _is_refused(character) else character for character in name)
        if safe != name or safe.startswith("."):
            safe = re.sub("-+", "-", safe.lstrip(".-"))
        safe = safe.encode()[:_MAX_FOLDER_BYTES].decode(errors="ignore").strip().rstrip(". ") or "class"
        is_reserved = is_ignored(safe) or _RESERVED.fullmatch(safe)
        while safe.casefold() in taken or ((safe != name or is_reserved) and not safe.endswith(f"_{label}")):
            safe = f"{safe}_{label}"
        taken.add(safe.casefold())
        names.append(safe)
    return names


def _is_refused(character: str) -> bool:
    return character in '<>:"/\\|?*' or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def to_csv(lines: Sequence[Sequence[Any]]) -> bytes:
    """Write lines as CSV in UTF-8."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


FORMATS = {
    format.name: format
    for format in (
        Format(name="parquet", suffix=".parquet", encode=_encode_parquet, requires="pyarrow.parquet"),
        Format(name="webdataset", suffix=".tar", encode=_encode_webdataset),
        Format(name="npz", suffix=".npz", encode=_encode_npz),
        Format(name="folder", suffix="", encode=_encode_folder),
    )
}
"""Every format by its name."""
