"""Read the rows that commands send: image files, folders of them, NPZ files, or rows of a server's data set.

Files are listed and decoded as those of data sets are, with transparent pixels on white.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.client.sync import Client
from fount.errors import InvalidRequest, NotFound
from fount.names import normal_name
from fount.readers import DataError, Limits
from fount.readers.image_decoder import IMAGE_SUFFIXES, decode_image
from fount.readers.image_folder import list_images
from fount.readers.npz import read_rows

__all__ = ["GivenRows", "pull_rows", "read_file", "read_files", "read_lines", "refused"]

_MAX_SIDE = 4096  # pixels, as in the contract


@dataclass(frozen=True, kw_only=True)
class GivenRows:
    """Rows that a user named.

    Attributes:
        values: (N, H, W, C) pictures, or of an NPZ file (N, ...) floats.
        names: N texts to show above pictures.
        labels: N classes by name, or by index as "#2"; None where they are unknown.
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def row_names(self) -> tuple[str, ...]:
        """N texts for a table: the names, or the numbers of rows whose names are their classes."""
        return self.names if self.names != self.labels else tuple(map(str, range(len(self))))


def pull_rows(client: Client, dataset: str, limit: int) -> GivenRows:
    """Pull rows of a plan of the unchanged data set, which mixes its classes."""
    plan = client.plan({"dataset": dataset, "seed": 0})
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    with closing(client.pull(plan, provenance="none")) as batches:
        for batch in batches:
            missing = limit - len(names)
            images.append(batch.images[:missing])
            names += [plan.classes[label] for label in batch.labels[:missing].tolist()]
            if len(names) == limit:
                break
    if not names:
        raise NotFound(f"The data set {dataset!r} has no rows; name another.")
    if (channels := images[0].shape[3]) not in (1, 3):
        raise InvalidRequest(f"The data set {dataset!r} has images of {channels} channels; 1 or 3 can be drawn.")
    return GivenRows(values=np.concatenate(images), names=tuple(names), labels=tuple(names))


def read_files(paths: Sequence[Path], limit: int, arrays: Sequence[str], *, floats: bool = False) -> GivenRows:
    """Read the first rows of image files, folders or one NPZ file; in a folder, folders are classes.

    Args:
        paths: at least one.
        limit: the most rows.
        arrays: possible names of the array of an NPZ file.
        floats: whether an NPZ file may hold floats.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return _read_npz(paths[0], limit, arrays, floats=floats)
    listed = (found for path in paths for found in _image_files(path, limit))
    files = list(islice(listed, limit))
    found: list[NDArray[np.uint8]] = []
    for file, _ in files:
        found.append(read_file(file))
        if found[0].shape != found[-1].shape:
            first, other = (" × ".join(map(str, image.shape)) for image in (found[0], found[-1]))
            raise refused(files[0][0], f"is {first}, and {file} is {other}; give images of one size")
    labels = tuple(label for _, label in files if label)
    return GivenRows(
        values=np.stack(found),
        names=tuple(file.stem for file, _ in files),
        labels=labels if len(labels) == len(files) else None,
    )


def read_lines(paths: Sequence[Path], limit: int) -> GivenRows:
    """Read the first lines of text files that are not empty, each a text: (N,) str, named by their numbers from 0."""
    texts: list[str] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"There is no file {str(path)!r}.")
        try:
            with path.open(encoding="utf-8") as lines:
                filled = (line for line in map(_without_end, lines) if line)
                texts += islice(filled, limit - len(texts))
        except (OSError, UnicodeDecodeError) as error:
            raise refused(path, f"cannot be read as UTF-8 text ({error})", "texts") from error
    if not texts:
        raise refused(paths[0], "has no lines; give one text a line", "texts")
    return GivenRows(values=np.array(texts, object), names=tuple(map(str, range(len(texts)))))


def refused(path: Path, text: str, content: str = "images") -> InvalidRequest:
    """Make the error of a file."""
    return InvalidRequest(f"The {content} cannot be used:", fields=[(str(path), text)])


def _without_end(line: str) -> str:
    return line.removesuffix("\n")


def _image_files(path: Path, limit: int) -> Iterator[tuple[Path, str]]:
    """List image files, each with its class, which is empty where no folder names it."""
    if not path.is_dir():
        yield path, ""
        return
    with _reading(path):
        found = list(islice(list_images(path), limit))
    if not found:
        raise NotFound(f"The folder {str(path)!r} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    for file in found:
        yield file, "" if file.parent == path else normal_name(file.parent.name)


def read_file(path: Path) -> NDArray[np.uint8]:
    """Read an image file: (H, W, C) uint8."""
    with _reading(path):
        image = decode_image(path, str(path), background="white", max_pixels=Limits().max_pixels)
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE:
        raise refused(path, f"has {width} × {height} pixels; a side may have at most {_MAX_SIDE}")
    return image


def _read_npz(path: Path, limit: int, arrays: Sequence[str], *, floats: bool) -> GivenRows:
    with _reading(path):
        values, labels, classes = read_rows(path, arrays, limit, floats=floats)
    if not len(values):
        raise refused(path, f"holds {values.shape}, which is no rows; give at least one")
    if values.dtype == np.uint8:
        values = values[..., None] if values.ndim == 3 else values
        if values.shape[3] not in (1, 3):
            raise refused(path, f"holds images of {values.shape}; (N, H, W, 1 or 3) is supported")
    return GivenRows(
        values=values,
        names=tuple(map(str, range(len(values)))),
        labels=None if labels is None else tuple(_class(label, classes) for label in labels),
    )


def _class(label: str | int, classes: Sequence[str]) -> str:
    """Name a class of a file: an index without a name becomes "#2"."""
    if isinstance(label, str):
        return normal_name(label)
    return classes[label] if 0 <= label < len(classes) else f"#{label}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what readers and numpy raise over a file that is absent or damaged into an error that names it."""
    if not path.exists():
        raise NotFound(f"There is no file {str(path)!r}.")
    try:
        yield
    except DataError as error:
        raise InvalidRequest(f"The images cannot be used: {error}.") from error
