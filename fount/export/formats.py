"""The formats an export can have: how each names its files, and what makes them."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fount.errors import MissingExtra
from fount.export.folder import deflated_pngs, encode_folder, stored_pngs
from fount.export.table import Contents, Table, values_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DATA", "FORMATS", "Format", "encode_npz", "encode_parquet", "encode_webdataset"]


DATA = "data"
"""The folder in an export that holds its rows."""

Save = Callable[[str, bytes], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write rows.

    Attributes:
        name: what --format calls it.
        ending: of its files; empty when each row is a file of its own, and a part the list of them.
        encode: makes the file of a part; files of single rows are given to its second argument.
        needs: a package that is not always installed; empty when there is none.
    """

    name: str
    ending: str
    encode: Callable[[Table, Save], bytes]
    needs: str = ""

    def require(self) -> None:
        """See that all it needs is installed.

        Raises:
            MissingExtra: it is not.
        """
        if not self.needs:
            return
        try:
            import_module(self.needs)
        except ModuleNotFoundError as error:
            raise MissingExtra.of(command="pull", extra=self.name, missing=self.needs) from error

    def file_of(self, number: int, parts: int, split: str) -> str:
        """Name a part's file within the export.

        Hugging Face knows the split by such names: data/train-00003-of-00010.parquet.

        Args:
            number: which part.
            parts: how many there are.
            split: what the rows are called together; only letters, digits and "_" of it are kept.
        """
        if not self.ending:
            return f".fount/rows/{number:05d}.csv"
        return f"{DATA}/{re.sub(r'[^A-Za-z0-9_]+', '_', split) or 'rows'}-{number:05d}-of-{parts:05d}{self.ending}"


FORMATS = {
    format.name: format
    for format in (
        Format(
            name="parquet", ending=".parquet", encode=lambda table, _: encode_parquet(table), needs="pyarrow.parquet"
        ),
        Format(name="webdataset", ending=".tar", encode=lambda table, _: encode_webdataset(table)),
        Format(name="npz", ending=".npz", encode=lambda table, _: encode_npz(table)),
        Format(name="folder", ending="", encode=encode_folder),
    )
}
"""Every format by its name."""


# FOLDED FROM fount.export.formats:
# NPZ: one archive of arrays a part, as NumPy reads it.


_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip archive can say: equal rows make equal files


def encode_npz(table: Table) -> bytes:
    """Make an NPZ file of a part: `images`, one array a column, and the names that ids stand for.

    label and group are ids, source is a code of `fount.v1.Source`; -1 or NaN where a row has none.
    """
    arrays: dict[str, NDArray[Any]] = {"images": table.images, **table.columns}
    arrays["classes"] = np.array(table.contents.classes, np.str_)
    if table.contents.groups:
        arrays["groups"] = np.array(table.contents.groups, np.str_)
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()


# FOLDED FROM fount.export.formats:
# WebDataset: one tar file a part, in which the files of a row share a name: `000000012.png`, `.cls` and
# `.json`. Times, owners and modes are fixed, so that equal rows make equal files. The head of a member is a
# template with its name, size and checksum put in: the standard library takes longer for a head than zlib for a
# small picture. Source: POSIX.1-1988, ustar interchange format.


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


# FOLDED FROM fount.export.formats:
# Parquet, with pictures the way Hugging Face `datasets` reads them: a struct of PNG bytes and a path. The
# features are named in the schema's metadata, so that `load_dataset` gives pictures and class names, not
# structs and numbers. The PNG files are stored, and Parquet compresses the column: faster and smaller than each
# file by itself.


_ROWS_A_GROUP = 2000
_COMPRESSION = "zstd"
_COMPRESSION_LEVEL = -5  # as fast as snappy, and smaller


def encode_parquet(table: Table) -> bytes:
    """Make a Parquet file of a part.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(table.contents)
    arrays = [_images(table.images), *(_array(table, name, schema.field(name).type) for name in table.columns)]
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
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROWS_A_GROUP)
    return sink.getvalue()


def _schema(contents: Contents) -> pa.Schema:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), *((name, _type(name, kind)) for name, kind in contents.columns().items())]
    features = {"image": {"_type": "Image"}} | {
        name: _feature(name, kind, contents) for name, kind in contents.columns().items()
    }
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _type(name: str, kind: np.dtype[Any]) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if name == "source" else pa.from_numpy_dtype(kind)


def _feature(name: str, kind: np.dtype[Any], contents: Contents) -> dict[str, Any]:
    names = {"label": contents.classes, "group": contents.groups}.get(name)
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
    return pa.array(values_of(table, name), kind)


def _images(images: NDArray[np.uint8]) -> pa.Array:
    """The struct column: every file has one length, so the offsets are multiples of it."""
    import pyarrow as pa

    files = stored_pngs(images)
    offsets = np.arange(len(files) + 1, dtype=np.int32) * np.int32(files.shape[1])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(files.reshape(-1))]
    data = pa.Array.from_buffers(pa.binary(), len(files), buffers)
    paths = pa.nulls(len(files), pa.string())
    return pa.StructArray.from_arrays([data, paths], ["bytes", "path"])
