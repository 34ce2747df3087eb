"""Read the images for `fount augment`: image files, folders of them, or an NPZ file; all of one shape.

Sizes are checked before anything is decoded, and nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fount.errors import InvalidRequest, NotFound

__all__ = ["InputImages", "read_images"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_GREY_MODES = ("1", "L", "LA")
_WIDE_MODES = ("I", "I;16", "I;16B", "F")  # of more than 8 bits, which Pillow would clip to white
_MAX_SIDE = 4096  # pixels, as in the contract
_ARRAYS = ("images", "samples")  # possible names in an NPZ file


@dataclass(frozen=True, kw_only=True, eq=False)
class InputImages:
    """Images and their names.

    Attributes:
        images: (N, H, W, 1 or 3) uint8.
        names: one per image.
    """

    images: NDArray[np.uint8]
    names: Sequence[str]


def read_images(paths: Sequence[Path], limit: int) -> InputImages:
    """Read the first images.

    Args:
        paths: image files, folders of them, or one NPZ file with `images` or `samples`.
        limit: the most images to read, 1 or more.

    Raises:
        NotFound: there is no such file, or no image in the folder.
        InvalidRequest: a file is not an image, is too large, or has another shape than the first.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return _read_npz(paths[0], limit)
    files = [file for path in paths for file in _files(path)][:limit]
    images: list[NDArray[np.uint8]] = []
    for file in files:
        images.append(_read_file(file))
        if images[0].shape != images[-1].shape:
            raise _refused(
                files[0], f"is {_shape(images[0])}, and {file} is {_shape(images[-1])}; give images of one size"
            )
    return InputImages(images=np.stack(images), names=[file.stem for file in files])


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in _SUFFIXES]
    if not found:
        raise NotFound(f"The folder {str(path)!r} has no images ({', '.join(_SUFFIXES)}).")
    yield from found


def _read_file(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if max(image.size) > _MAX_SIDE:
                raise _refused(path, f"has {image.width} × {image.height} pixels; a side may have at most {_MAX_SIDE}")
            if image.mode in _WIDE_MODES:
                raise _refused(
                    path, f"has pixels of mode {image.mode}, and only 8 bits per channel are read; convert it"
                )
            pixels = np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"), np.uint8)
    except UnidentifiedImageError as error:
        raise _refused(path, "is not a supported image") from error
    except Image.DecompressionBombError as error:
        raise _refused(path, f"is too large: {error}") from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG files
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"There is no file {str(path)!r}.") from error
        raise _refused(path, f"cannot be read: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1)  # (H, W, 1 or 3)


def _read_npz(path: Path, limit: int) -> InputImages:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise _refused(path, "is a single array; write it with numpy.savez, as `images`")
        with loaded as arrays:
            name = next((name for name in _ARRAYS if name in arrays), None)
            if name is None:
                raise _refused(path, f"holds {', '.join(arrays) or 'nothing'}; name the array of images `images`")
            images = np.atleast_1d(arrays[name])[:limit]
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {str(path)!r}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _refused(path, f"cannot be read: {error}") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise _refused(path, f"holds {name} of {images.shape} {images.dtype}; (N, H, W, 1 or 3) uint8 is supported")
    return InputImages(images=images, names=[str(row) for row in range(len(images))])


def _shape(image: NDArray[np.uint8]) -> str:
    return " × ".join(map(str, image.shape))


def _refused(path: Path, text: str) -> InvalidRequest:
    return InvalidRequest("The images cannot be augmented:", fields=[(str(path), text)])
