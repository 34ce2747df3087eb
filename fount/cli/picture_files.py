"""Pictures to vary, read from picture files, folders of them, or an NPZ file; all of one shape.

What is read is capped before it is decoded, and nothing is unpickled.
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

__all__ = ["Pictures", "read_pictures"]

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_GREY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "I;16", "I;16B", "F")  # of more than 8 bits, which Pillow would cut off at white
_LONGEST_SIDE = 4096  # pixels, as the contract has it
_ARRAYS = ("images", "samples")  # what an NPZ file's pictures may be called


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Pictures and what to call them.

    Attributes:
        images: (N, H, W, 1 or 3) uint8.
        names: one a picture.
    """

    images: NDArray[np.uint8]
    names: Sequence[str]


def read_pictures(paths: Sequence[Path], most: int) -> Pictures:
    """Read the first pictures.

    Args:
        paths: picture files, folders of them, or one NPZ file with `images` or `samples`.
        most: how many are read, 1 or more.

    Raises:
        NotFound: there is no such file, or no picture in the folder.
        InvalidRequest: a file is no picture, is too large, or has another shape than the first.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return _read_npz(paths[0], most)
    files = [file for path in paths for file in _files(path)][:most]
    images: list[NDArray[np.uint8]] = []
    for file in files:
        images.append(_read_file(file))
        if images[0].shape != images[-1].shape:
            raise _refused(
                files[0], f"is {_shape(images[0])}, and {file} is {_shape(images[-1])}; give pictures of one size"
            )
    return Pictures(images=np.stack(images), names=[file.stem for file in files])


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in _ENDINGS]
    if not found:
        raise NotFound(f"The folder {str(path)!r} holds no pictures ({', '.join(_ENDINGS)}).")
    yield from found


def _read_file(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if max(image.size) > _LONGEST_SIDE:
                raise _refused(path, f"has {image.width} × {image.height} pixels; a side may have {_LONGEST_SIDE}")
            if image.mode in _DEEP_MODES:
                raise _refused(path, f"has pixels of mode {image.mode}, and 8 bits a channel can be varied; convert it")
            pixels = np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"), np.uint8)
    except UnidentifiedImageError as error:
        raise _refused(path, "is no picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise _refused(path, f"is too large: {error}") from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG files
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"There is no file {str(path)!r}.") from error
        raise _refused(path, f"cannot be read: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1)  # (H, W, 1 or 3)


def _read_npz(path: Path, most: int) -> Pictures:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise _refused(path, "is a single array; write it with numpy.savez, as `images`")
        with loaded as arrays:
            name = next((name for name in _ARRAYS if name in arrays), None)
            if name is None:
                raise _refused(path, f"holds {', '.join(arrays) or 'nothing'}; its pictures are to be called `images`")
            images = np.atleast_1d(arrays[name])[:most]
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {str(path)!r}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _refused(path, f"cannot be read: {error}") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise _refused(path, f"holds {name} of {images.shape} {images.dtype}; (N, H, W, 1 or 3) uint8 can be varied")
    return Pictures(images=images, names=[str(row) for row in range(len(images))])


def _shape(image: NDArray[np.uint8]) -> str:
    return " × ".join(map(str, image.shape))


def _refused(path: Path, text: str) -> InvalidRequest:
    return InvalidRequest("The pictures cannot be varied:", fields=[(str(path), text)])
