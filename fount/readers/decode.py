"""Encoded pictures to pixels: PNG, JPEG, BMP and WebP, never larger than allowed, in one size and number of channels.

Bytes that somebody else made enter; (H, W, C) uint8 leaves, or a `DataError`. What Pillow would unpack is known from
the picture's header, and is refused there when it is too much.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.readers.dataset import DataError, Pixels
from fount.readers.source import DatasetSource

__all__ = ["PICTURE_ENDINGS", "PictureReader", "fitted", "picture_reader"]

PICTURE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Endings of files that are pictures, in small letters."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "P": 3}  # of modes that lose nothing; the others only when channels is set
_CONVERTED = frozenset({"LA", "RGBA", "PA", "CMYK", "YCbCr"})
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class PictureReader:
    """Turns encoded pictures into arrays of one shape.

    Attributes:
        shape: (H, W, C) of every image.
        resizes: True when pictures of other sizes are resized to it.
        converts: True when pictures of other channels are converted to it.
        max_pixels: of one picture as it is packed.
    """

    shape: tuple[int, int, int]
    resizes: bool
    converts: bool
    max_pixels: int

    def read(self, picture: Path | bytes, where: str) -> NDArray[np.uint8]:
        """Decode one picture; `where` names it in messages.

        Raises:
            DataError: it is damaged, no picture, too large, or of another shape.
        """
        height, width, channels = self.shape
        with _open(picture, where, self.max_pixels) as opened:
            own = _channels_of(opened, where, self.converts)
            if own != channels and not self.converts:
                raise DataError(f"{where} has {own} channels, the first image has {channels}; set channels to 1 or 3")
            if opened.size != (width, height) and not self.resizes:
                told = f"{where} has {opened.height}×{opened.width} pixels, the first image {height}×{width}"
                raise DataError(f"{told}; set size, or make them equal")
            pixels = _decode(opened, where, self.shape)
        return np.asarray(pixels, np.uint8).reshape(self.shape)  # (H, W) or (H, W, C) -> (H, W, C)


def picture_reader(source: DatasetSource, first: Path | bytes, where: str) -> PictureReader:
    """The reader of pictures like the first one, or as the source's size and channels say.

    Raises:
        DataError: the first one cannot be read.
    """
    with _open(first, where, source.limits.max_pixels) as opened:
        size = source.size or (opened.height, opened.width)
        channels = source.channels or _channels_of(opened, where, converts=False)
    return PictureReader(
        shape=(*size, channels),
        resizes=source.size is not None,
        converts=source.channels is not None,
        max_pixels=source.limits.max_pixels,
    )


def _open(picture: Path | bytes, where: str, max_pixels: int) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} has more than the {max_pixels} pixels allowed; make it smaller") from error
    except Exception as error:  # whatever decoders raise over bytes that are no picture
        told = f"{where} is no picture that is read here ({_short(error)})"
        raise DataError(f"{told}; put a PNG, JPEG, BMP or WebP file there") from error
    if opened.width * opened.height > max_pixels:
        opened.close()
        told = f"{where} has {opened.height}×{opened.width} pixels, and {max_pixels} are allowed"
        raise DataError(f"{told}; make it smaller")
    return opened


def _channels_of(opened: Image.Image, where: str, converts: bool) -> int:
    if ";16B" in str(getattr(opened, "tile", "")):  # colours of 16 bits, which Pillow would cut to 8 without a word
        raise DataError(f"{where} has 16 bits a channel, and 8 are read; convert it")
    if opened.mode in _CHANNELS:
        return _CHANNELS[opened.mode]
    if opened.mode not in _CONVERTED:
        raise DataError(f"{where} has pixels of mode {opened.mode}, and 8 bits a channel are read; convert it")
    if not converts:
        raise DataError(f"{where} has pixels of mode {opened.mode}; set channels to 1 or 3 to have it converted")
    return 0


def _decode(opened: Image.Image, where: str, shape: tuple[int, int, int]) -> Image.Image:
    height, width, channels = shape
    try:
        pixels = opened.convert(_MODES[channels])
    except Exception as error:  # whatever decoders raise over damaged bytes
        raise DataError(f"{where} is a damaged picture ({_short(error)}); replace it") from error
    return pixels if pixels.size == (width, height) else pixels.resize((width, height), Image.Resampling.BILINEAR)


def _short(error: Exception) -> str:
    text = str(error).partition("<_io")[0].strip()  # Pillow names the memory address of its buffer
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


# --- Images that are arrays already -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _FittedPixels:
    """Arrays that are resized or converted as they are read."""

    base: Pixels
    shape: tuple[int, int, int]
    where: Callable[[int], str]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        fit = np.empty((len(rows), *self.shape), np.uint8)
        for k, (row, image) in enumerate(zip(rows.tolist(), self.base.read(rows), strict=True)):
            opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            fit[k] = np.asarray(_decode(opened, self.where(row), self.shape)).reshape(self.shape)
        return fit


def fitted(
    source: DatasetSource, pixels: Pixels, shape: tuple[int, int, int], where: Callable[[int], str]
) -> tuple[Pixels, tuple[int, int, int]]:
    """Resize and convert the images of an array as the source says; as they are when it says nothing.

    Raises:
        DataError: there are channels that cannot be converted.
    """
    wanted = (*(source.size or shape[:2]), source.channels or shape[2])
    if wanted == shape:
        return pixels, shape
    if shape[2] not in _MODES and shape[2] != 4:
        raise DataError(f"{source.path} has images of {shape[2]} channels, and 1, 3 and 4 "
                        "can be fitted; leave size and channels away")  # fmt: skip
    if wanted[2] not in _MODES:
        raise DataError(f"{source.path} has images of {shape[2]} channels; set channels to 1 or 3")
    return _FittedPixels(base=pixels, shape=wanted, where=where), wanted
