"""Find the files of each split of a data set that is stored in several: Parquet and NPZ."""

from __future__ import annotations

import itertools
from pathlib import Path

from fount.readers.dataset import DataError
from fount.readers.layout import SPLITS, inner_folders, only_folder

__all__ = ["split_files"]

_SPLITS = ("train", "test", "validation")
_KINDS = {".parquet": "Parquet", ".npz": "NPZ"}


def split_files(path: Path, suffix: str) -> dict[str, list[Path]]:
    """List the files of each split: one file is train; names of files, or of folders of files, begin with a split.

    They are in the folder itself, in its folder data, or in another one, as data hubs lay them out.

    Raises:
        DataError: several folders have files, so that none is meant, or some belong to no split.
    """
    if path.is_file():
        return {"train": [path]}
    files = _files_in(path, suffix) or _files_in(path / "data", suffix)
    if not files:
        folders = [each for each in inner_folders(path) if _files_in(each, suffix)]
        folder = only_folder(path, folders, _KINDS[suffix])
        files = _files_in(folder, suffix) if folder else {}
    found: dict[str, list[Path]] = {name: [] for name in (*_SPLITS, "")}
    for file, split in files.items():
        found[split].append(file)
    others = found.pop("")
    found = {name: some for name, some in found.items() if some}
    if not found and files:
        return {"train": others}
    if files and "train" not in found:
        raise DataError(f"{path} has no file whose name begins with train; rename the file of the training rows")
    if others:
        problem = f"the name of {min(others)} begins with none of {', '.join(_SPLITS)}, unlike those next to it"
        raise DataError(f"{problem}; rename or move it")
    return found


def _files_in(folder: Path, suffix: str) -> dict[Path, str]:
    """The files of a folder, or else of the folders of splits in it, each with its split; empty where it has none."""
    if files := sorted(folder.glob(f"[!.]*{suffix}")):
        return {file: _split_of(file.name) for file in files}
    folders = [each for each in sorted(folder.glob("*")) if each.name.lower() in SPLITS and each.is_dir()]
    return {file: _split_of(each.name) for each in folders for file in sorted(each.glob(f"[!.]*{suffix}"))}


def _split_of(name: str) -> str:
    """The split whose name, or another spelling of it, a file name begins with; empty: none."""
    name = name.lower()
    word = "".join(itertools.takewhile(str.isalpha, name))
    split = SPLITS.get(word) or next((split for split in _SPLITS if name.startswith(split)), "")
    return "validation" if split == "val" else split
