"""Read a folder of images by class: ROOT/CLASS/*.png, or ROOT/train/CLASS/… and ROOT/test/CLASS/….

Entries are sorted by name; images are decoded when they are read. Links out of the root are refused, and any entry that
is neither class nor image is reported rather than skipped. In the root, groups.csv may assign each image to a group and
classes.csv each folder to a class; `folder_tables.py` reads them. Exports of `fount pull` have both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fount.names import normal_name
from fount.readers.dataset import DataError, Dataset, DatasetSource, FileVersion
from fount.readers.folder_tables import CLASSES_FILE, Groups, groups_file, read_classes, read_groups
from fount.readers.image_decoder import IMAGE_SUFFIXES, ImageDecoder, decoder_for
from fount.readers.layout import LAYOUTS, SPLITS, entries, holds_images, is_image
from fount.readers.validation import RawSplit, build_dataset, check_class_name, check_size

__all__ = ["list_images", "read_image_folder"]

_EXPORT_FILE = "rows.csv"  # of `fount pull`, next to the folder of its images
_NO_CLASSES = frozenset({"data", "dataset", "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"})
_TABLES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl"})
_HOW_TO_LABEL = "put the images into one folder a class, or write NPZ or Parquet"


def read_image_folder(source: DatasetSource, root: Path) -> Dataset:
    """List the images of a folder; only the first is opened."""
    if (root / _EXPORT_FILE).is_file() and (root / "data").is_dir():
        root = root / "data"
    inside = root.resolve()
    folders = _folders(root, inside, tables={groups_file(source, root), root / CLASSES_FILE})
    listed = {name: _list_split(source, *split, inside) for name, split in _find_splits(root, folders, inside).items()}
    groups, classes = read_groups(source, root), read_classes(root)
    if classes is None:
        _check_classes(listed)
    first = FileVersion.of(listed["train"][0]).file  # refuses a pipe, which opening would wait on for ever
    decoder = decoder_for(source, first, str(first))
    check_size(source, sum(map(len, listed.values())), decoder.shape)
    splits = [_raw_split(name, files, decoder, root, groups, classes) for name, files in listed.items()]
    return build_dataset(source, format="folder", splits=splits, class_names=list((classes or {}).values()))


def list_images(folder: Path) -> Iterator[Path]:
    """List every image in a folder and in those below it, sorted by name, by the rules of data sets."""
    inside = folder.resolve()
    waiting = [folder]
    while waiting:
        each = waiting.pop()
        if each.is_dir() and (each == folder or not each.is_symlink()):  # a link may be circular
            waiting += reversed(entries(each, inside))
        elif is_image(each):
            yield each


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
    name: str,
    files: list[Path],
    decoder: ImageDecoder,
    root: Path,
    groups: Groups | None,
    classes: Mapping[str, str] | None,
) -> RawSplit:
    return RawSplit(
        name=name,
        pixels=_FolderPixels(versions=tuple(map(FileVersion.of, files)), decoder=decoder),
        shape=decoder.shape,
        labels=[_class_of(file.parent, root, classes) for file in files],
        groups=None if groups is None else [groups.of(file, root) for file in files],
        where=lambda row: f"{files[row]} (row {row})",
    )


def _check_classes(listed: Mapping[str, list[Path]]) -> None:
    """Refuse one folder of all images, whose name is that of no class."""
    folders = {file.parent.name: file.parent for files in listed.values() for file in files}
    if len(folders) == 1 and (name := next(iter(folders))).lower() in _NO_CLASSES:
        found = f"{folders[name]} holds all images, and would be their one class, {name!r}"
        raise DataError(f"{found}; {_HOW_TO_LABEL}; if it is a class, give the folder its name in {CLASSES_FILE}")


def _class_of(folder: Path, root: Path, classes: Mapping[str, str] | None) -> str:
    if classes is None:
        return folder.name
    if (name := classes.get(normal_name(folder.name))) is None:
        raise DataError(f"{root / CLASSES_FILE} has no line for the folder {folder.name}; add one")
    return name


def _find_splits(root: Path, folders: list[Path], inside: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Find the folder of each split and those in it, "train" first; the root is "train" where it holds classes.

    A folder that has the name of a split, and images but no folders in it, is a class of this name next to others.
    """
    named = [each for each in folders if each.name.lower() in SPLITS]
    others = [each for each in folders if each not in named]
    if all(holds_images(each) and not _has_folders(each, inside) for each in named):
        if named and not others:
            raise DataError(f"{named[0]} holds images without classes; {LAYOUTS}")
        if len(others) == 1 and not named and not holds_images(others[0]) and _has_folders(others[0], inside):
            raise DataError(f"{root} holds the folders of {others[0].name} alone; give {others[0]} as the path")
        return {"train": (root, folders)}
    found: dict[str, Path] = {}
    for each in named:
        split = SPLITS[each.name.lower()]
        if same := [known for known in found if known[:3] == split[:3]]:  # val and validation are one
            raise DataError(f"{found[same[0]]} and {each} are both the split {split}; merge or remove one of them")
        found[split] = each
    if "train" not in found:
        raise DataError(
            f"{named[0]} is a split, and {root} has no folder train; name that of the training images train"
        )
    if others:
        wrong = f"{others[0]} is next to the split {found['train'].name}, and is none of {', '.join(SPLITS)}"
        raise DataError(f"{wrong}; put its classes into a split, or move it elsewhere")
    return {
        name: (found[name], _folders(found[name], inside)) for name in dict.fromkeys(SPLITS.values()) if name in found
    }


def _list_split(source: DatasetSource, folder: Path, classes: list[Path], inside: Path) -> list[Path]:
    """List every image of every class, sorted by name."""
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


def _folders(root: Path, inside: Path, tables: Set[Path] = frozenset()) -> list[Path]:
    """List the folders of classes or splits; nothing else but the tables may be next to them."""
    folders: list[Path] = []
    files: list[Path] = []
    for entry in entries(root, inside):
        if entry not in tables:
            (folders if entry.is_dir() else files).append(entry)
    if not folders:
        if arrays := [file for file in files if file.suffix.lower() == ".npz"]:
            raise DataError(f"{root} holds the NPZ file {arrays[0].name}; give {arrays[0]} as the path")
        if images := [file for file in files if is_image(file)]:
            raise DataError(f"{root} holds images without classes, such as {images[0].name}; {LAYOUTS}")
        found = f"holds {', '.join(file.name for file in files[:3])}" if files else "is empty"
        raise DataError(f"{root} {found}, and has no class folder; {LAYOUTS}")
    for file in files:
        if is_image(file):
            raise DataError(f"{file} is next to the class folders; put it into the folder of its class")
        raise DataError(f"{file} is neither a class folder nor an image; {_move(file)}")
    return folders


def _images(folder: Path, inside: Path) -> Iterator[Path]:
    for entry in entries(folder, inside):
        if entry.is_dir():
            raise DataError(f"{entry} is a folder within a class, {folder.name}; {LAYOUTS}")
        if not is_image(entry):
            supported = ", ".join(sorted(IMAGE_SUFFIXES))
            remedy = _move(entry) if entry.suffix.lower() in _TABLES else "convert it, or move it elsewhere"
            raise DataError(f"{entry} is not a supported image file ({supported}); {remedy}")
        yield entry


def _move(file: Path) -> str:
    """The remedy for a file that is not data, and may be a table of labels, which are not read."""
    if file.suffix.lower() not in _TABLES:
        return "move it elsewhere"
    return f"labels are read from folder names, not from {file.name}: {_HOW_TO_LABEL}, and move it elsewhere"


def _has_folders(folder: Path, inside: Path) -> bool:
    return any(map(Path.is_dir, entries(folder, inside)))
