"""The one door: what a `DatasetSource` says, read by the reader of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from fount.readers.dataset import DataError, Dataset
from fount.readers.digits import read_digits
from fount.readers.folder import read_folder
from fount.readers.idx import find_idx, read_idx_folder
from fount.readers.npz import read_npz
from fount.readers.parquet import parquet_files, read_parquet
from fount.readers.source import DatasetSource

__all__ = ["FORMATS", "read_dataset"]

_READERS: Mapping[str, Callable[[DatasetSource, Path], Dataset]] = MappingProxyType(
    {"idx": read_idx_folder, "npz": read_npz, "folder": read_folder, "parquet": read_parquet}
)

FORMATS = ("auto", *_READERS)
"""What `DatasetSource.format` may say."""


def read_dataset(source: DatasetSource) -> Dataset:
    """Open a data set; its pixels are read later, and its digest is computed when asked for.

    Raises:
        DataError: it is absent or damaged; names the file, the row where there is one, and what to do.
    """
    if source.path is None:
        if source.name != "digits":
            raise DataError(f"data set {source.name!r} has no path; name its file or folder")
        return read_digits()
    if not source.path.exists():
        raise DataError(f"{source.path} is not there; name the file or folder of {source.name}")
    kind = _detect(source.path) if source.format == "auto" else source.format
    if kind not in _READERS:
        raise DataError(f"{source.path}: the format {kind!r} is unknown; name one of {', '.join(FORMATS)}")
    if kind in ("idx", "folder") and not source.path.is_dir():
        raise DataError(f"{source.path} is no folder, and {kind} is one; name the folder")
    return _READERS[kind](source, source.path)


def _detect(path: Path) -> str:
    """The format of what lies at a path."""
    if path.is_file():
        kind = path.suffix.lower().removeprefix(".")
        if kind not in ("npz", "parquet"):
            told = (
                "name an .npz or .parquet file, a folder of IDX or Parquet files, or a folder with one folder a class"
            )
            raise DataError(f"{path} is of no format that is read here; {told}")
        return kind
    if find_idx(path, "train-images-idx3-ubyte") or find_idx(path, "train-labels-idx1-ubyte"):
        return "idx"
    return "parquet" if parquet_files(path) else "folder"
