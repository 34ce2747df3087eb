"""Parquet files as they lie on the disk: which there are, what their footers say, and what is wrong with them.

Paths enter; `ParquetFile`s leave, whose columns `fount.readers.parquet` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.readers.dataset import DataError
from fount.readers.source import DatasetSource
from fount.readers.unchanged import FileStamp

__all__ = ["LABEL_COLUMN", "ParquetFile", "ParquetRows", "open_parquet", "parquet_files", "reading"]

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
