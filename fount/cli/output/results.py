"""Write the results of commands over given rows: a picture, an NPZ file or a CSV file, as the suffix says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fount.cli.output.paths import check_output_file
from fount.cli.output.sample_writers import MAX_GRID
from fount.errors import OutputError, output_errors
from fount.files import atomic_path, atomic_write

__all__ = ["check_grid", "check_result_file", "write_arrays", "write_picture", "write_table"]


def check_result_file(out: str, *suffixes: str, or_folder: bool = False) -> Path:
    """Check that a file can be written, and that its suffix is one of those supported, in lower case."""
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        *others, last = [f"a {suffix} file" for suffix in suffixes] + ["a folder/"] * or_folder
        raise OutputError(f"{out} has no supported suffix: write to {', '.join(others)}{' or ' * bool(others)}{last}")
    check_output_file(path)
    return path


def check_grid(path: Path, name: str, tiles: int, *, is_pictures: bool) -> None:
    """Check that results can be drawn, before any is requested; a file of arrays can hold all of them."""
    if path.suffix.lower() != ".png":
        return
    if not is_pictures:
        raise OutputError(f"{path} would be a picture, and {name} makes none of 1 or 3 channels: write a .npz file")
    if tiles > MAX_GRID:
        raise OutputError(
            f"A grid shows {MAX_GRID} images at most, and not {tiles}; write a .npz file, or lower --rows"
        )


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG file."""
    with output_errors(path), atomic_path(path) as temporary:
        picture.save(temporary, "PNG")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an NPZ file of those arrays, numbers and texts that are not None."""
    kept: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    with output_errors(path), atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **kept)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with output_errors(path):
        atomic_write(path, text.getvalue().encode())
