"""Parquet with pictures in it, as Hugging Face and `fount pull` write it: columns image, label and, if wanted, group.

Labels are read at once, pictures a row group at a time, the latest of which are kept; so row groups of some thousand
pictures are read fast in any order as long as all of them fit. Needs pyarrow, which the extra `data` installs.

Source: Apache Parquet, "File format"; Hugging Face `datasets`, `Image.arrow_schema` (struct of bytes and path).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.readers.assemble import Part, Values, assemble, check_amount
from fount.readers.dataset import DataError, Dataset, FileStamp
from fount.readers.decode import PictureReader, picture_reader
from fount.readers.source import DatasetSource

__all__ = ["LABEL_COLUMN", "ParquetFile", "ParquetRows", "open_parquet", "parquet_files", "read_parquet", "reading"]


_KEPT_BYTES = 512 << 20  # of encoded pictures, a split
_MOST_GROUP_BYTES = 1 << 30  # of encoded pictures, a row group
_BATCH_ROWS, _BATCH_BYTES = 256, 256 << 20


def read_parquet(source: DatasetSource, path: Path) -> Dataset:
    """Read labels and the first picture; the others when they are asked for.

    Raises:
        DataError: pyarrow is not installed, or columns are missing, damaged or of another type.
    """
    names = parquet_files(path)
    if not names:
        raise DataError(f"{path} holds no .parquet file; name the folder that does")
    opened = {name: [open_parquet(source, file) for file in files] for name, files in names.items()}
    total = sum(file.rows for files in opened.values() for file in files)
    check_amount(source, total, (1, 1, 1))  # before the labels are read; the pictures' own size is not known yet
    columns = {name: _read_columns(source, files) for name, files in opened.items()}
    if not any(file.rows for file in opened["train"]):
        raise DataError(f"{path} has no rows in train; put some there")
    first = next(file for file in opened["train"] if file.rows)
    where = f"{first.stamp.file}, row 0"
    reader = picture_reader(source, _take(_load(first, _first_group(first)), 0, where), where)
    check_amount(source, total, reader.shape)
    parts = [
        Part(
            name=name,
            pixels=_ParquetPixels(files=tuple(files), reader=reader),
            labels=columns[name][0],
            groups=columns[name][1],
            where=ParquetRows(files=tuple(files)).row,
        )
        for name, files in opened.items()
    ]
    return assemble(source, kind="parquet", shape=reader.shape, parts=parts, class_names=_class_names(first))


def _class_names(file: ParquetFile) -> tuple[str, ...]:
    """The names that Hugging Face keeps in the schema; empty when there are none."""
    try:
        label = json.loads(file.metadata[b"huggingface"])["info"]["features"][LABEL_COLUMN]
        return tuple(map(str, label["names"])) if label["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError):
        return ()


# --- Labels and groups ------------------------------------------------------------------------------------------------


def _read_columns(source: DatasetSource, files: Sequence[ParquetFile]) -> tuple[Values, Values | None]:
    labels = [_read_column(file, LABEL_COLUMN) for file in files]
    with_groups = [file for file in files if file.group]
    if with_groups and len(with_groups) < len(files):
        raise DataError(
            f"{source.path}: some files have the column {with_groups[0].group}, some do not; make them alike"
        )
    groups = [_read_column(file, file.group) for file in with_groups]
    return _join(source, labels), _join(source, groups) if groups else None


def _join(source: DatasetSource, columns: Sequence[Values]) -> Values:
    numbers = [column for column in columns if isinstance(column, np.ndarray)]
    if len(numbers) == len(columns):
        return np.concatenate(numbers)
    if numbers:
        raise DataError(f"{source.path}: some files have numbers where others have names; make them alike")
    return [str(value) for column in columns for value in column]


def _read_column(file: ParquetFile, name: str) -> Values:
    """Numbers, or names; names as a dictionary, so that one long name in many rows takes its room once."""
    import pyarrow as pa

    path = file.stamp.file
    with reading(path, dictionaries=[name]) as opened:
        column = opened.read(columns=[name]).column(0).combine_chunks()
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{path}, row {row} has no {name}; mend the row, or leave it out")
        if len(column) != file.rows:
            raise DataError(f"{path} has {len(column)} values of {name} and announces {file.rows}; write it again")
        if isinstance(column, pa.DictionaryArray) and pa.types.is_string(column.dictionary.type):
            names = column.dictionary.to_pylist()
            return [names[k] for k in column.indices.to_numpy()]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return [str(value) for value in column.to_pylist()]
        if pa.types.is_integer(column.type):
            return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    raise DataError(f"{path}: the column {name} is {str(column.type)[:100]}; write whole numbers, or strings")


# --- Pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _ParquetPixels:
    """The pictures of a split; row groups are read as they are needed, and the latest are kept."""

    files: tuple[ParquetFile, ...]
    reader: PictureReader
    kept: OrderedDict[tuple[int, int], Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.reader.shape), np.uint8)
        file_ends = np.cumsum([file.rows for file in self.files])
        which = np.searchsorted(file_ends, rows, side="right")
        for number in np.unique(which).tolist():
            file, mine = self.files[number], np.flatnonzero(which == number)
            own = rows[mine] - (file_ends[number] - file.rows)  # rows within the file
            groups = np.searchsorted(file.ends, own, side="right")
            for group in np.unique(groups).tolist():
                column, first = self._column(number, group), int(file.ends[group - 1]) if group else 0
                for k in np.flatnonzero(groups == group).tolist():
                    where = f"{file.stamp.file}, row {own[k]}"
                    images[mine[k]] = self.reader.read(_take(column, int(own[k]) - first, where), where)
        return images

    def _column(self, number: int, group: int) -> Any:
        """One row group's pictures as they are packed: a pyarrow array of bytes."""
        with self.lock:
            column = self.kept.pop((number, group), None)
            is_new = column is None
            if is_new:
                column = _load(self.files[number], group)
            self.kept[number, group] = column
            while is_new and len(self.kept) > 1 and sum(each.nbytes for each in self.kept.values()) > _KEPT_BYTES:
                self.kept.popitem(last=False)
            return column


def _first_group(file: ParquetFile) -> int:
    return int(np.searchsorted(file.ends, 0, side="right"))


def _load(file: ParquetFile, group: int) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    file.stamp.check()
    batches, size = [], 0
    with reading(file.stamp.file) as opened:
        rows = _batch_rows(file, group, opened.metadata.row_group(group))
        for batch in opened.iter_batches(rows, row_groups=[group], columns=[file.image], use_threads=False):
            size += batch.nbytes
            if size > _MOST_GROUP_BYTES:
                raise _too_much(file, group)
            column = batch.column(0)
            batches.append(pc.struct_field(column, "bytes") if "." in file.image else column)
        column = pa.chunked_array(batches) if batches else pa.chunked_array([], pa.binary())
    expected = int(file.ends[group] - (file.ends[group - 1] if group else 0))
    if len(column) != expected:
        told = f"{file.stamp.file}, row group {group} holds {len(column)} pictures and announces {expected}"
        raise DataError(f"{told}; write it again")
    return column


def _batch_rows(file: ParquetFile, group: int, footer: Any) -> int:
    """How many pictures may be unpacked at once if each is as large as all: repeating one takes no room in a file."""
    packed = next(each for k in range(footer.num_columns) if (each := footer.column(k)).path_in_schema == file.image)
    size = int(packed.total_uncompressed_size)
    if size > _MOST_GROUP_BYTES:
        raise _too_much(file, group)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, size)))


def _too_much(file: ParquetFile, group: int) -> DataError:
    told = f"{file.stamp.file}, row group {group} holds more than {_MOST_GROUP_BYTES} bytes of pictures"
    return DataError(f"{told}; write smaller row groups")


def _take(column: Any, row: int, where: str) -> bytes:
    picture = column[row].as_py()
    if picture is None:
        raise DataError(f"{where} has no picture's bytes, or a path alone; write the bytes into the file")
    return bytes(picture)


# FOLDED FROM fount.readers.parquet:
# Parquet files as they lie on the disk: which there are, what their footers say, and what is wrong with them.
# Paths enter; `ParquetFile`s leave, whose columns `fount.readers.parquet` reads.


LABEL_COLUMN = "label"

_SPLITS = ("train", "test", "validation")
_IMAGE_COLUMNS, _GROUP_COLUMN = ("image", "img"), "group"


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """The files of each split: one file is train; in a folder, or its subfolder data, names begin with their split.

    Raises:
        DataError: some names in a folder begin with a split and some do not.
    """
    if path.is_file():
        return {"train": [path]}
    files = sorted(path.glob("[!.]*.parquet")) or sorted((path / "data").glob("[!.]*.parquet"))
    found = {name: [file for file in files if file.name.startswith(name)] for name in _SPLITS}
    found = {name: some for name, some in found.items() if some}
    if not found and files:
        return {"train": files}
    if files and "train" not in found:
        raise DataError(f"{path} has no file whose name begins with train; rename the training rows' file")
    if others := set(files) - {file for some in found.values() for file in some}:
        told = f"the name of {min(others)} begins with none of {', '.join(_SPLITS)}, as its neighbours' do"
        raise DataError(f"{told}; rename or move it")
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ParquetFile:
    """One file, whose footer was read.

    Attributes:
        stamp: it, as it was then.
        image: its column of pictures, as a path for pyarrow: "image", or "image.bytes" of a struct.
        group: its group column; empty when it has none.
        ends: (row groups,) int64: rows up to the end of each.
        metadata: of its schema.
    """

    stamp: FileStamp
    image: str
    group: str
    ends: NDArray[np.int64]
    metadata: dict[bytes, bytes]

    @property
    def rows(self) -> int:
        """How many it has."""
        return int(self.ends[-1]) if len(self.ends) else 0


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """Names rows of several files for messages."""

    files: tuple[ParquetFile, ...]

    def row(self, row: int) -> str:
        """The file and the row within it."""
        for file in self.files:
            if row < file.rows:
                return f"{file.stamp.file}, row {row}"
            row -= file.rows
        return f"row {row} past the end"


def open_parquet(source: DatasetSource, file: Path) -> ParquetFile:
    """Read a file's footer.

    Raises:
        DataError: it is damaged, or lacks a column.
    """
    stamp = FileStamp.of(file)
    with reading(file) as opened:
        schema, footer = opened.schema_arrow, opened.metadata
        columns = {name: schema.field(name).type for name in schema.names}
        group = source.group or (_GROUP_COLUMN if _GROUP_COLUMN in columns else "")
        if missing := [name for name in (LABEL_COLUMN, *([group] if group else [])) if name not in columns]:
            told = f"{file} has no column {missing[0]}; it has {', '.join(columns)[:200]}"
            raise DataError(f"{told}; rename the column that is meant")
        rows = [footer.row_group(k).num_rows for k in range(footer.num_row_groups)]
        return ParquetFile(
            stamp=stamp,
            image=_image_column(file, columns),
            group=group,
            ends=np.cumsum(np.array(rows, np.int64)),
            metadata=dict(schema.metadata or {}),
        )


class reading:  # noqa: N801  # a context manager, used like a function
    """Open a Parquet file, and say in our words what pyarrow finds wrong with it.

    Args:
        file: the file.
        dictionaries: columns that are read as dictionaries.

    Raises:
        DataError: pyarrow is not installed, or raised something, within the block too.
    """

    def __init__(self, file: Path, *, dictionaries: Sequence[str] = ()) -> None:
        self._file, self._dictionaries = file, dictionaries
        self._opened: Any = None

    def __enter__(self) -> Any:
        try:
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            told = f"{self._file} is a Parquet file, which needs pyarrow"
            raise DataError(f"{told}; pip install 'fount[parquet]'") from error
        try:
            self._opened = pq.ParquetFile(self._file, read_dictionary=list(self._dictionaries))
        except Exception as error:
            raise self._damaged(error) from error
        return self._opened

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._opened is not None:
            self._opened.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):  # whatever pyarrow raises over bad bytes
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return DataError(f"{self._file} is a damaged Parquet file, or none ({told}); write it again")


def _image_column(file: Path, columns: dict[str, Any]) -> str:
    import pyarrow.types as of

    name = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    if name is None:
        raise DataError(
            f"{file} has no column image; it has {', '.join(columns)[:200]}; rename the column that is meant"
        )
    kind = columns[name]
    if of.is_binary(kind) or of.is_large_binary(kind):
        return name
    inner = [kind.field(k) for k in range(kind.num_fields)] if of.is_struct(kind) else []
    if any(each.name == "bytes" and (of.is_binary(each.type) or of.is_large_binary(each.type)) for each in inner):
        return f"{name}.bytes"
    told = f"{file}: the column {name} is {str(kind)[:100]}"
    raise DataError(f"{told}; pictures are bytes, or a struct of bytes and path as Hugging Face writes it")
