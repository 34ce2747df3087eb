"""Read labelled image data sets: IDX, NPZ, a folder of images by class, Parquet, and the built-in digits and shapes.

A `DatasetSource` enters: where the data are, how to read them, and size limits. A `Dataset` leaves; its pixels are read
on demand. Every fault of the files is a `DataError` that names the file, the row and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from fount.readers.dataset import (
    Background,
    DataError,
    Dataset,
    DatasetSource,
    DatasetSplit,
    FileVersion,
    Format,
    Limits,
    state_of_files,
)
from fount.readers.digits import read_digits
from fount.readers.idx import idx_folder, read_idx_folder
from fount.readers.image_folder import read_image_folder
from fount.readers.layout import LAYOUTS, inner_folders
from fount.readers.npz import read_npz
from fount.readers.parquet import read_parquet
from fount.readers.shapes import read_shapes
from fount.readers.split_files import split_files

__all__ = [
    "Background", "DataError", "Dataset", "DatasetSource", "DatasetSplit", "Format", "Limits", "read_dataset",
    "state_of_files",
]  # fmt: skip

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")

_READERS: Mapping[Format, Callable[[DatasetSource, Path], Dataset]] = MappingProxyType(
    {"idx": read_idx_folder, "npz": read_npz, "folder": read_image_folder, "parquet": read_parquet}
)

_BUILT_IN: Mapping[str, Callable[[], Dataset]] = MappingProxyType({"digits": read_digits, "shapes64": read_shapes})


def read_dataset(source: DatasetSource) -> Dataset:
    """Open a data set with the reader of its format; pixels and the digest are read on demand.

    Raises:
        DataError: it is absent or damaged; names the file, the row where there is one, and the remedy.
    """
    path = source.path
    if path is None:
        if source.name not in _BUILT_IN:
            raise DataError(f"data set {source.name!r} has no path; give its file or folder")
        return _BUILT_IN[source.name]()
    if not path.exists():
        raise DataError(f"{path} does not exist; give the file or folder of {source.name}")
    if not path.is_dir():
        FileVersion.of(path)  # refuses pipes and devices
    format = _detect_format(path) if source.format == "auto" else source.format
    if format in ("idx", "folder") and not path.is_dir():
        raise DataError(f"{path} is not a folder, which the format {format} requires; give the folder")
    return _READERS[format](source, path)


def _detect_format(path: Path) -> Format:
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return "npz"
        if path.suffix.lower() == ".parquet":
            return "parquet"
        if path.name.lower().endswith(_ARCHIVES):
            raise DataError(f"{path} is an archive; unpack it, and give the folder")
        raise DataError(f"{path} has no supported format; {LAYOUTS}")
    if idx_folder(path):
        return "idx"
    if tars := next((each for each in (path, path / "data") if next(each.glob("[!.]*.tar"), None)), None):
        found = f"{tars} holds tar files, as WebDataset reads them and Fount does not"
        raise DataError(f"{found}; unpack them to a folder a class, or export the plan again with --format parquet")
    folders = (path, *inner_folders(path))
    if arrow := next((each for folder in folders for each in folder.glob("[!.]*.arrow")), None):
        found = f"{path} holds Arrow files such as {arrow.name}, as save_to_disk writes them"
        raise DataError(f"{found}; write each split as Parquet, with load_from_disk and ds.to_parquet('train.parquet')")
    return next((format for format in ("parquet", "npz") if split_files(path, f".{format}")), "folder")
