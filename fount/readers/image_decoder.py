"""Decode PNG, JPEG, BMP and WebP images within size limits, to one size and number of channels.

Untrusted bytes enter; (H, W, C) uint8 leaves, or a `DataError`. An image over the size limit is refused by its
header, before Pillow decompresses it. `fit_pixels` does the same for images that are arrays.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.readers.dataset import DataError, DatasetSource, Pixels

__all__ = ["IMAGE_SUFFIXES", "ImageDecoder", "decoder_for", "fit_pixels"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""File name suffixes of images, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "P": 3}  # of modes whose conversion loses nothing
_CONVERTIBLE = frozenset({"LA", "RGBA", "PA", "CMYK", "YCbCr"})  # only when channels is set
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class ImageDecoder:
    """Decodes images into arrays of one shape.

    Attributes:
        shape: (H, W, C) of every image.
        resizes: whether images of other sizes are resized to it, rather than refused.
        converts: whether images of other channels are converted to it, rather than refused.
        max_pixels: of one encoded image.
    """

    shape: tuple[int, int, int]
    resizes: bool
    converts: bool
    max_pixels: int

    def decode(self, image: Path | bytes, where: str) -> NDArray[np.uint8]:
        """Decode one image; a DataError names `where` it is damaged, not an image, too large, or of another shape."""
        height, width, channels = self.shape
        with _open(image, where, self.max_pixels) as opened:
            found = _channels_of(opened, where, converts=self.converts)
            if found != channels and not self.converts:
                raise DataError(f"{where} has {found} channels, the first image has {channels}; set channels to 1 or 3")
            if opened.size != (width, height) and not self.resizes:
                sizes = f"{where} has {opened.height}×{opened.width} pixels, the first image {height}×{width}"
                raise DataError(f"{sizes}; set size, or make them equal")
            return _convert(opened, where, self.shape)


def decoder_for(source: DatasetSource, first: Path | bytes, where: str) -> ImageDecoder:
    """Make the decoder for images like the first one, or of the source's size and channels."""
    with _open(first, where, source.limits.max_pixels) as opened:
        size = source.size or (opened.height, opened.width)
        channels = source.channels or _channels_of(opened, where, converts=False)
    return ImageDecoder(
        shape=(*size, channels),
        resizes=source.size is not None,
        converts=source.channels is not None,
        max_pixels=source.limits.max_pixels,
    )


def _open(image: Path | bytes, where: str, max_pixels: int) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} has more than the {max_pixels} pixels allowed; make it smaller") from error
    except Exception as error:  # decoders raise many types over bytes that are not an image
        found = f"{where} is not a supported image ({_summary(error)})"
        raise DataError(f"{found}; use a PNG, JPEG, BMP or WebP file") from error
    if opened.width * opened.height > max_pixels:
        opened.close()
        found = f"{where} has {opened.height}×{opened.width} pixels, and {max_pixels} are allowed"
        raise DataError(f"{found}; make it smaller")
    return opened


def _channels_of(opened: Image.Image, where: str, *, converts: bool) -> int:
    if ";16B" in str(getattr(opened, "tile", "")):  # 16-bit colours, which Pillow silently truncates to 8
        raise DataError(f"{where} has 16 bits per channel, and 8 are read; convert it")
    if opened.mode in _CHANNELS:
        return _CHANNELS[opened.mode]
    if opened.mode not in _CONVERTIBLE:
        raise DataError(f"{where} has pixels of mode {opened.mode}, and 8 bits per channel are read; convert it")
    if not converts:
        raise DataError(f"{where} has pixels of mode {opened.mode}; set channels to 1 or 3 to have it converted")
    return 0


def _convert(opened: Image.Image, where: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    height, width, channels = shape
    try:
        pixels = opened.convert(_MODES[channels])
    except Exception as error:  # decoders raise many types over damaged bytes
        raise DataError(f"{where} is a damaged image ({_summary(error)}); replace it") from error
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.uint8).reshape(shape)  # (H, W) or (H, W, C) -> (H, W, C)


def _summary(error: Exception) -> str:
    text = str(error).partition("<_io")[0].strip()  # Pillow names the memory address of its buffer
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


@dataclass(frozen=True, kw_only=True)
class _FittedPixels:
    """Images of an array that are resized and converted when they are read."""

    base: Pixels
    shape: tuple[int, int, int]
    where: Callable[[int], str]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        fitted = np.empty((len(rows), *self.shape), np.uint8)
        for k, (row, image) in enumerate(zip(rows.tolist(), self.base.read(rows), strict=True)):
            opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            fitted[k] = _convert(opened, self.where(row), self.shape)
        return fitted


def fit_pixels(
    source: DatasetSource, pixels: Pixels, shape: tuple[int, int, int], where: Callable[[int], str]
) -> tuple[Pixels, tuple[int, int, int]]:
    """Resize and convert images of an array to the source's size and channels, if set; return them and their shape."""
    target = (*(source.size or shape[:2]), source.channels or shape[2])
    if target == shape:
        return pixels, shape
    if shape[2] not in (1, 3, 4):
        found = f"{source.path} has images of {shape[2]} channels, and only 1, 3 and 4 can be resized or converted"
        raise DataError(f"{found}; remove size and channels")
    if target[2] not in _MODES:
        raise DataError(f"{source.path} has images of {shape[2]} channels; set channels to 1 or 3")
    return _FittedPixels(base=pixels, shape=target, where=where), target
