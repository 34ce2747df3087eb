"""Recognise what a folder holds: which entries are data, which folders are splits, and where the data are.

Readers list folders with it, so that files of operating systems and data hubs are ignored everywhere alike, and splits
have the same spellings in every format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from fount.names import normal_name
from fount.readers.dataset import DataError
from fount.readers.image_decoder import IMAGE_SUFFIXES

__all__ = ["LAYOUTS", "SPLITS", "entries", "holds_images", "inner_folders", "is_ignored", "is_image", "only_folder"]

LAYOUTS = (
    "a data set is an NPZ or Parquet file, a folder of NPZ or Parquet files or of IDX files called as MNIST's "
    "(train-images-idx3-ubyte), or a folder of images as CLASS/IMAGE, or as train/CLASS/IMAGE and test/CLASS/IMAGE"
)
"""What can be read, for the errors of a path that holds something else."""

SPLITS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train", "training": "train", "test": "test", "testing": "test",
        "val": "val", "valid": "validation", "validation": "validation", "dev": "validation",
    }
)  # fmt: skip
"""The name of a split by its usual spellings, which are compared in lower case."""

_IGNORED = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin",
        "readme", "readme.md", "readme.txt", "license", "license.md", "license.txt", "dataset_infos.json",
    }
)  # fmt: skip
"""What operating systems, archive tools and data hubs put next to data, in lower case; hidden files in addition."""


def entries(folder: Path, inside: Path) -> list[Path]:
    """List the entries of a folder that may be data, sorted by name.

    Raises:
        DataError: the folder cannot be read, or one of them is a link that leaves `inside`.
    """
    found = [folder / name for name in _names(folder)]
    for each in found:
        if _leaves(each, inside):
            raise DataError(f"{each} is a link that leaves {inside}; put the file itself there")
    return sorted(found, key=lambda each: (normal_name(each.name), each.name))


def is_image(entry: Path) -> bool:
    """Whether the name of a file is that of an image."""
    return entry.suffix.lower() in IMAGE_SUFFIXES


def holds_images(folder: Path) -> bool:
    """Whether a folder has images directly in it, as that of a class has; a DataError when it cannot be read."""
    return any(is_image(Path(name)) for name in _names(folder))


def inner_folders(path: Path) -> list[Path]:
    """List the folders in a folder that are not those of classes, and may hold files of another format.

    Raises:
        DataError: a folder cannot be read.
    """
    inside = path.resolve()
    found = [each for name in _names(path) if (each := path / name).is_dir() and not _leaves(each, inside)]
    return sorted(each for each in found if not holds_images(each))


def only_folder(path: Path, found: list[Path], format: str) -> Path | None:
    """Choose the folder below a path that holds files of a format; None where there is none.

    Raises:
        DataError: there are several, so that none is meant.
    """
    if len(found) > 1:
        shown = ", ".join(str(each) for each in found[:12])
        raise DataError(f"{path} holds {format} files of several data sets; give one of the folders {shown}")
    return found[0] if found else None


def is_ignored(name: str) -> bool:
    """Whether files and folders of a name are not data."""
    return name.startswith(".") or name.lower() in _IGNORED


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder that are not ignored, in no order."""
    try:
        with os.scandir(folder) as found:
            for each in found:
                if not is_ignored(each.name):
                    yield each.name
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check path and permissions") from error


def _leaves(entry: Path, inside: Path) -> bool:
    return entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(inside)  # survives circular links
