"""Read a folder of images by class: ROOT/CLASS/*.png, or ROOT/train/CLASS/… and ROOT/test/CLASS/….

Entries are sorted by name; images are decoded when they are read. Links out of the root are refused, and any entry that
is neither class nor image is reported rather than skipped. A file groups.csv in the root, with the columns path and
group, assigns each image to a group.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fount.readers.dataset import DataError, Dataset, DatasetSource, FileVersion
from fount.readers.image_decoder import IMAGE_SUFFIXES, ImageDecoder, decoder_for
from fount.readers.validation import RawSplit, build_dataset, check_class_name, check_size

__all__ = ["read_image_folder"]

_SPLITS = ("train", "test", "val", "validation")
_GROUPS_FILE = "groups.csv"
_GROUPS_COLUMNS = ["path", "group"]
_IGNORED = frozenset({"Thumbs.db", "desktop.ini", "README.md", "LICENSE", "README.txt", "LICENSE.txt"})


def read_image_folder(source: DatasetSource, root: Path) -> Dataset:
    """List the images of a folder; only the first is opened."""
    inside = root.resolve()
    names = {folder.name: folder for folder in _folders(root, inside)}
    roots = {name: names[name] for name in _SPLITS if name in names} if "train" in names else {"train": root}
    if "train" in names and (others := sorted(set(names) - set(_SPLITS))):
        found = f"{names[others[0]]} is next to {names['train']}"
        raise DataError(f"{found}; a folder holds either splits or classes; move it")
    listed = {name: _list_split(source, folder, inside) for name, folder in roots.items()}
    groups = _read_groups(source, root)
    first = FileVersion.of(listed["train"][0]).file  # refuses a pipe, which opening would wait on for ever
    decoder = decoder_for(source, first, str(first))
    check_size(source, sum(map(len, listed.values())), decoder.shape)
    splits = [_raw_split(name, files, decoder, root, groups) for name, files in listed.items()]
    return build_dataset(source, format="folder", splits=splits)


@dataclass(frozen=True, kw_only=True)
class _FolderPixels:
    """Image files, decoded when they are read."""

    versions: tuple[FileVersion, ...]
    decoder: ImageDecoder

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.decoder.shape), np.uint8)
        for k, row in enumerate(rows.tolist()):
            version = self.versions[row]
            version.check_unchanged()
            images[k] = self.decoder.decode(version.file, f"{version.file} (row {row})")
        return images


def _raw_split(
    name: str, files: list[Path], decoder: ImageDecoder, root: Path, groups: dict[str, str] | None
) -> RawSplit:
    return RawSplit(
        name=name,
        pixels=_FolderPixels(versions=tuple(map(FileVersion.of, files)), decoder=decoder),
        shape=decoder.shape,
        labels=[file.parent.name for file in files],
        groups=None if groups is None else [_group_of(file, root, groups) for file in files],
        where=lambda row: f"{files[row]} (row {row})",
    )


def _list_split(source: DatasetSource, folder: Path, inside: Path) -> list[Path]:
    """List every image of every class, sorted by name."""
    classes = list(_folders(folder, inside))
    if not classes:
        raise DataError(f"{folder} has no class folder; create one per class, with its images in it")
    if len(classes) > source.limits.max_classes:
        found = f"{folder} has {len(classes)} folders, and at most {source.limits.max_classes} classes are read"
        raise DataError(f"{found}; merge or remove some")
    files: list[Path] = []
    for each in classes:
        check_class_name(each.name, str(folder))
        images = list(_images(each, inside))
        if not images:
            raise DataError(f"{each} has no image; remove the folder, or put the images of the class there")
        files += images
        if len(files) > source.limits.max_rows:
            raise DataError(f"{folder} has more than the {source.limits.max_rows} images that are read; split it")
    return files


def _folders(root: Path, inside: Path) -> Iterator[Path]:
    for entry in _entries(root, inside):
        if entry.is_dir():
            yield entry
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(f"{entry} is next to the class folders; put it into the folder of its class")
        elif entry.name not in _IGNORED and entry.name != _GROUPS_FILE:
            raise DataError(f"{entry} is neither a class nor an image; move it elsewhere")


def _images(folder: Path, inside: Path) -> Iterator[Path]:
    for entry in _entries(folder, inside):
        if entry.is_dir():
            raise DataError(f"{entry} is a folder within a class; move its images one level up")
        if entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry
        elif entry.name not in _IGNORED:
            supported = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{entry} is not a supported image file ({supported}); convert it, or move it elsewhere")


def _entries(folder: Path, inside: Path) -> list[Path]:
    """List the entries of a folder that are not hidden, sorted by name."""
    try:
        found = sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=str)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check path and permissions") from error
    for each in found:
        if each.is_symlink() and not Path(os.path.realpath(each)).is_relative_to(inside):  # survives circular links
            raise DataError(f"{each} is a link that leaves {inside}; put the file itself there")
    return found


def _read_groups(source: DatasetSource, root: Path) -> dict[str, str] | None:
    """Read the group of each path from groups.csv; None when there is no such file."""
    file = root / (source.group or _GROUPS_FILE)
    if not file.is_file():
        if source.group:
            found = f"{file}, which the setting group names, does not exist"
            raise DataError(f"{found}; write a CSV file with the columns path and group")
        return None
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "write it as UTF-8 with the columns path and group"
        raise DataError(f"{file} cannot be read ({error}); {remedy}") from error
    header = rows[0][1] if rows else []
    if header != _GROUPS_COLUMNS:
        raise DataError(f"{file} begins with {','.join(header)[:80]!r}; its first line must be path,group")
    groups: dict[str, str] = {}
    for line, row in rows[1:]:
        if len(row) != len(_GROUPS_COLUMNS) or not row[1].strip():
            raise DataError(f"{file}, line {line} is {','.join(row)[:80]!r}; write a path and a group")
        path, group = row
        if groups.setdefault(path, group) != group:
            found = f"{file}, line {line} puts {path[:80]!r} into another group than an earlier line"
            raise DataError(f"{found}; remove one of them")
    return groups


def _group_of(image: Path, root: Path, groups: dict[str, str]) -> str:
    path = image.relative_to(root).as_posix()
    if path not in groups:
        raise DataError(f"{root / _GROUPS_FILE} has no line for {path}; add one")
    return groups[path]
