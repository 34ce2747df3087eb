"""Read Parquet files of images, as Hugging Face and `fount pull` write them: columns image, label and optionally group.

Footers and labels are read at once, images one row group at a time; the latest row groups are cached, so rows in any
order are read fast as long as all row groups fit. Needs pyarrow, which the extra `parquet` installs.

Source: Apache Parquet, "File format"; Hugging Face `datasets`, `Image.arrow_schema` (struct of bytes and path).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.cancellation import WorkCancelled, check_cancelled
from fount.json_text import parse_json
from fount.readers.dataset import DataError, Dataset, DatasetSource, FileVersion, Limits, check_content
from fount.readers.dataset_card import names_in_card
from fount.readers.image_decoder import ImageDecoder, decoder_for
from fount.readers.split_files import split_files
from fount.readers.validation import NO_GROUP, RawSplit, Values, build_dataset, check_size, join_values

__all__ = ["read_parquet"]

_CACHE_BYTES = 512 << 20  # of encoded images, per split
_MAX_GROUP_BYTES = 1 << 30  # of encoded images, per row group
_START_BYTES = 64
_BATCH_ROWS, _BATCH_BYTES = 256, 256 << 20
_LABEL_COLUMN, _IMAGE_COLUMNS, _GROUP_COLUMN = "label", ("image", "img"), "group"


def read_parquet(source: DatasetSource, path: Path) -> Dataset:
    """Read labels and the first image; the others on demand."""
    names = split_files(path, ".parquet")
    if not names:
        raise DataError(f"{path} holds no .parquet file; give the folder that does")
    files = {split: [_open_file(source, file) for file in found] for split, found in names.items()}
    total = sum(file.rows for found in files.values() for file in found)
    check_size(source, total, (1, 1, 1))  # before the labels are read; the size of the images is not known yet
    columns = {split: _read_columns(source, found) for split, found in files.items()}
    first = next((file for file in files["train"] if file.rows), None)
    if first is None:
        raise DataError(f"{path} has no rows in train; add some")
    where = f"{first.version.file}, row 0"
    group = int(np.searchsorted(first.group_ends, 0, side="right"))  # the first row group that has rows
    decoder = decoder_for(source, _load_images(first, group).bytes_of(0, where), where)
    check_size(source, total, decoder.shape)
    splits = [
        RawSplit(
            name=split,
            pixels=_ParquetPixels(files=tuple(found), decoder=decoder),
            shape=decoder.shape,
            labels=columns[split][0],
            groups=columns[split][1],
            where=partial(_describe_row, found),
        )
        for split, found in files.items()
    ]
    return build_dataset(
        source,
        format="parquet",
        splits=splits,
        class_names=_names_of(first, _LABEL_COLUMN) or _card_names(path, first, columns["train"][0]),
        group_names=_names_of(first, first.group),
    )


def _card_names(path: Path, first: _File, labels: Values) -> tuple[str, ...]:
    """The class names of the card in a folder, where labels are numbers."""
    if not isinstance(labels, np.ndarray) or path.is_file():
        return ()
    return names_in_card(path, first.version.file.parent.name, _LABEL_COLUMN)


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """One file, whose footer was read.

    Attributes:
        image: its column of images, as a path for pyarrow: "image", or "image.bytes" of a struct.
        group_ends: (row groups,) int64: the number of rows up to the end of each row group.
    """

    version: FileVersion
    image: str
    group: str | None
    group_ends: NDArray[np.int64]
    metadata: dict[bytes, bytes]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.group_ends[-1]) if len(self.group_ends) else 0


def _describe_row(files: Sequence[_File], row: int) -> str:
    """Name the file of a row, and the row within it, for error messages."""
    for file in files:
        if row < file.rows:
            return f"{file.version.file}, row {row}"
        row -= file.rows
    return f"row {row} past the end"


def _open_file(source: DatasetSource, file: Path) -> _File:
    """Read a file's footer."""
    version = FileVersion.of(file)
    with _opened(file) as parquet:
        schema, footer = parquet.schema_arrow, parquet.metadata
        columns = {name: schema.field(name).type for name in schema.names}
        group = source.group or (_GROUP_COLUMN if _GROUP_COLUMN in columns else None)
        image = next((name for name in _IMAGE_COLUMNS if name in columns), _IMAGE_COLUMNS[0])
        if missing := [name for name in (_LABEL_COLUMN, group, image) if name is not None and name not in columns]:
            found = f"{file} has no column {missing[0]}; it has {', '.join(columns)[:200]}"
            raise DataError(f"{found}; rename the column that is meant")
        rows = [footer.row_group(k).num_rows for k in range(footer.num_row_groups)]
        return _File(
            version=version,
            image=_image_path(file, image, columns[image]),
            group=group,
            group_ends=np.cumsum(np.array(rows, np.int64)),
            metadata=dict(schema.metadata or {}),
        )


def _image_path(file: Path, name: str, kind: Any) -> str:
    import pyarrow.types as of

    if _is_bytes(kind):
        return name
    fields = [kind.field(k) for k in range(kind.num_fields)] if of.is_struct(kind) else []
    if any(each.name == "bytes" and _is_bytes(each.type) for each in fields):
        return f"{name}.bytes"
    found = f"{file}: the column {name} is {str(kind)[:100]}"
    raise DataError(f"{found}; images must be bytes, or a struct of bytes and path as Hugging Face writes it")


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    return bool(
        of.is_binary(kind) or of.is_large_binary(kind) or of.is_binary_view(kind) or of.is_fixed_size_binary(kind)
    )


def _is_text(kind: Any) -> bool:
    import pyarrow.types as of

    return bool(of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind))


def _names_of(file: _File, column: str | None) -> tuple[str, ...]:
    """Read the names that Hugging Face stores in the schema for the ids of a column; empty when there are none."""
    try:
        feature = parse_json(file.metadata[b"huggingface"])["info"]["features"][column]
        is_known = feature["_type"] == "ClassLabel" and isinstance(feature["names"], list)
        return tuple(map(str, feature["names"])) if is_known else ()
    except (KeyError, TypeError, ValueError):
        return ()


@contextmanager
def _opened(file: Path, *, dictionaries: Sequence[str] = ()) -> Iterator[Any]:
    """Open a Parquet file, some columns as dictionaries; what pyarrow raises within the block becomes a `DataError`."""
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise DataError(f"{file} is a Parquet file, which needs pyarrow; pip install 'fount[parquet]'") from error
    try:
        with pq.ParquetFile(file, read_dictionary=list(dictionaries)) as parquet:
            yield parquet
    except (DataError, WorkCancelled):
        raise
    except Exception as error:  # pyarrow raises many types over damaged bytes
        with file.open("rb") as start:
            check_content(start.read(_START_BYTES), str(file))
        summary = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{file} is a damaged Parquet file, or none ({summary}); write it again") from error


def _read_columns(source: DatasetSource, files: Sequence[_File]) -> tuple[Values, Values | None]:
    labels = [_read_column(file, _LABEL_COLUMN, source.limits) for file in files]
    groups = [_read_column(file, file.group, source.limits) for file in files if file.group is not None]
    if groups and len(groups) < len(files):
        raise DataError(f"{source.path}: some files have a group column, some do not; make them alike")
    return join_values(source, labels), join_values(source, groups) if groups else None


def _read_column(file: _File, name: str, limits: Limits) -> Values:
    """Read numbers, or names; names as a dictionary, so that a long name repeated in many rows is stored once."""
    import pyarrow as pa

    path = file.version.file
    with _opened(path, dictionaries=[name]) as parquet:
        column = parquet.read(columns=[name]).column(0).combine_chunks()
        if column.null_count and name == file.group and pa.types.is_integer(column.type) and _names_of(file, name):
            column = column.fill_null(NO_GROUP)
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{path}, row {row} has no {name}; correct the row, or remove it")
        if len(column) != file.rows:
            raise DataError(f"{path} has {len(column)} values of {name} and announces {file.rows}; write it again")
        if _is_text(column.type):
            column = column.dictionary_encode()
        if isinstance(column, pa.DictionaryArray) and _is_text(column.dictionary.type):
            if (count := len(column.dictionary)) > limits.max_classes:  # first: making them holds the interpreter
                found = f"{path} has {count} values of {name}, and at most {limits.max_classes} are read"
                raise DataError(f"{found}; check that the column holds a few different ones")
            names = column.dictionary.to_pylist()
            return [names[k] for k in column.indices.to_numpy()]
        if pa.types.is_integer(column.type):
            return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    raise DataError(f"{path}: the column {name} is {str(column.type)[:100]}; write whole numbers, or strings")


@dataclass(frozen=True, kw_only=True, eq=False)
class _ParquetPixels:
    """The images of a split; row groups are read on demand, and the latest are cached."""

    files: tuple[_File, ...]
    decoder: ImageDecoder
    cache: OrderedDict[tuple[int, int], _EncodedImages] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.decoder.shape), np.uint8)
        file_ends = np.cumsum([file.rows for file in self.files])
        file_of_row = np.searchsorted(file_ends, rows, side="right")
        for number in np.unique(file_of_row).tolist():
            file, positions = self.files[number], np.flatnonzero(file_of_row == number)
            row_in_file = rows[positions] - (file_ends[number] - file.rows)
            group_of_row = np.searchsorted(file.group_ends, row_in_file, side="right")
            for group in np.unique(group_of_row).tolist():
                images_of_group, first = self._group(number, group), int(file.group_ends[group - 1]) if group else 0
                for k in np.flatnonzero(group_of_row == group).tolist():
                    check_cancelled()
                    where = f"{file.version.file}, row {row_in_file[k]}"
                    encoded = images_of_group.bytes_of(int(row_in_file[k]) - first, where)
                    images[positions[k]] = self.decoder.decode(encoded, where)
        return images

    def _group(self, number: int, group: int) -> _EncodedImages:
        """Read one row group's encoded images, or find them in the cache."""
        with self.lock:
            found = self.cache.pop((number, group), None)
            is_missing = found is None
            if found is None:
                found = _load_images(self.files[number], group)
            self.cache[number, group] = found
            while is_missing and len(self.cache) > 1 and sum(c.size for c in self.cache.values()) > _CACHE_BYTES:
                self.cache.popitem(last=False)
            return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _EncodedImages:
    """The images of a row group: image i is `data[offsets[i] : offsets[i + 1]]`, unless it is missing."""

    offsets: NDArray[np.int64]
    data: memoryview
    missing: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """The number of bytes held."""
        return self.data.nbytes + self.offsets.nbytes + self.missing.nbytes

    def bytes_of(self, row: int, where: str) -> bytes:
        if self.missing[row]:
            raise DataError(f"{where} has no image bytes, or only a path; write the bytes into the file")
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]])


def _load_images(file: _File, group: int) -> _EncodedImages:
    import pyarrow as pa
    import pyarrow.compute as pc

    file.version.check_unchanged()
    where = f"{file.version.file}, row group {group}"
    batches, size = [], 0
    with _opened(file.version.file) as parquet:
        footer = parquet.metadata.row_group(group)
        chunks = [footer.column(k) for k in range(footer.num_columns)]
        announced = next(int(each.total_uncompressed_size) for each in chunks if each.path_in_schema == file.image)
        # A dictionary stores a repeated image once, so each row of a batch may be as large as all that is announced.
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, announced)))
        _check_group_size(announced, where)
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=[file.image], use_threads=False):
            check_cancelled()
            column = batch.column(0)
            column = pc.struct_field(column, "bytes") if "." in file.image else column
            column = column.cast(pa.large_binary())
            size += column.nbytes
            _check_group_size(size, where)
            batches.append(column)
        column = pa.concat_arrays(batches) if batches else pa.array([], pa.large_binary())
        _, offsets, data = column.buffers()
        encoded = _EncodedImages(
            offsets=np.frombuffer(offsets, np.int64, len(column) + 1, 8 * column.offset)
            if offsets
            else np.zeros(1, np.int64),
            data=memoryview(data or b""),
            missing=column.is_null().to_numpy(zero_copy_only=False),
        )
    expected = int(file.group_ends[group] - (file.group_ends[group - 1] if group else 0))
    if len(column) != expected:
        raise DataError(f"{where} holds {len(column)} images and announces {expected}; write it again")
    return encoded


def _check_group_size(size: int, where: str) -> None:
    if size > _MAX_GROUP_BYTES:
        raise DataError(f"{where} holds more than {_MAX_GROUP_BYTES} bytes of images; write smaller row groups")
