"""Decode image files within size limits, upright and without transparency, to one size and number of channels.

Untrusted bytes enter; (H, W, C) uint8 leaves, or a `DataError`. An image over the size limit is refused by its
header, before Pillow decompresses it. Images are turned as their EXIF block says, so sizes are those displayed, and
transparent pixels are composited on a background. `fit_pixels` does the same for images that are arrays.

Source: JEITA CP-3451, "Exif", section 4.6.4 (Orientation).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from fount.cancellation import check_cancelled
from fount.files import open_regular
from fount.readers.dataset import Background, DataError, DatasetSource, Pixels, check_content

__all__ = ["IMAGE_SUFFIXES", "ImageDecoder", "decode_image", "decoder_for", "fit_pixels"]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""File name suffixes of images, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "P": 3, "PA": 3}  # of modes whose conversion loses nothing
_CONVERTIBLE = frozenset({"CMYK", "YCbCr"})  # only when channels is set
_MODES = {1: "L", 3: "RGB"}
_LEVELS = {"white": 255, "black": 0}
_START_BYTES = 64
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # of PNG; Pillow scales these pixels to 8 bits, and not the transparent grey
_UPRIGHT = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""What displays an image of each orientation upright; `ImageOps.exif_transpose` fails over a damaged EXIF block."""


@dataclass(frozen=True, kw_only=True)
class ImageDecoder:
    """Decodes images into arrays of one shape.

    Attributes:
        shape: (H, W, C) of every image.
        resizes: whether images of other sizes are resized to it, rather than refused.
        converts: whether images of other channels are converted to it, rather than refused.
        background: of transparent pixels; None: they are refused.
        max_pixels: of one encoded image.
    """

    shape: tuple[int, int, int]
    resizes: bool
    converts: bool
    background: Background | None
    max_pixels: int

    def decode(self, image: Path | bytes, where: str) -> NDArray[np.uint8]:
        """Decode one image; a DataError names `where` it is damaged, not an image, too large, or of another shape."""
        height, width, channels = self.shape
        with _read(image, where, self.max_pixels) as opened:
            found = _channels_of(opened, where, converts=self.converts)
            if found != channels and not self.converts:
                raise DataError(f"{where} has {found} channels, the first image has {channels}; set channels to 1 or 3")
            if opened.size != (width, height) and not self.resizes:
                sizes = f"{where} has {opened.height}×{opened.width} pixels, the first image {height}×{width}"
                sizes = f"{sizes} (height×width)"
                raise DataError(f"{sizes}; set size, or make them equal")
            return _to_array(opened, where, self.shape, self.background)


def decoder_for(source: DatasetSource, first: Path | bytes, where: str) -> ImageDecoder:
    """Make the decoder for images like the first one, or of the source's size and channels."""
    with _read(first, where, source.limits.max_pixels) as opened:
        size = source.size or (opened.height, opened.width)
        channels = source.channels or _channels_of(opened, where, converts=False)
    return ImageDecoder(
        shape=(*size, channels),
        resizes=source.size is not None,
        converts=source.channels is not None,
        background=source.composited_on,
        max_pixels=source.limits.max_pixels,
    )


def decode_image(image: Path | bytes, where: str, *, background: Background, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one image in its own size and channels; (H, W, 1 or 3) uint8, or a DataError that names `where`."""
    with _read(image, where, max_pixels) as opened:
        channels = _channels_of(opened, where, converts=True) or 3
        return _to_array(opened, where, (opened.height, opened.width, channels), background)


@contextmanager
def _read(image: Path | bytes, where: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open and decompress one image within the limit, and turn it upright."""
    with _stream(image, where) as stream, _open(stream, where, max_pixels) as opened:
        if opened.mode in _CHANNELS and _is_deep(opened):
            raise DataError(f"{where} has 16 bits per channel, and 8 are read; convert it")
        if (step := _GREY_STEPS.get(str(_storage(opened)[0]))) and "transparency" in opened.info:
            opened.info["transparency"] *= step
        try:
            opened.load()
        except Exception as error:  # decoders raise many types over damaged bytes
            _check_complete(error, where)
            raise DataError(f"{where} is a damaged image ({_summary(error)}); replace it") from error
        turn = _turn(opened)
        yield opened if turn is None else opened.transpose(turn)


def _stream(image: Path | bytes, where: str) -> IO[bytes]:
    """Open the bytes of an image; never by name, since Pillow would map the file, which may shrink, into memory."""
    try:
        return io.BytesIO(image) if isinstance(image, bytes) else open_regular(image)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}; check its permissions") from error


def _open(stream: IO[bytes], where: str, max_pixels: int) -> Image.Image:
    try:
        opened = Image.open(stream, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} has more than the {max_pixels} pixels allowed; make it smaller") from error
    except Exception as error:  # decoders raise many types over bytes that are not an image
        stream.seek(0)
        check_content(stream.read(_START_BYTES), where)
        _check_complete(error, where)
        found = f"{where} is not a supported image ({_summary(error)})"
        raise DataError(f"{found}; use a PNG, JPEG, BMP, GIF, WebP, TIFF or PPM file") from error
    if opened.width * opened.height > max_pixels:
        opened.close()
        found = f"{where} has {opened.height}×{opened.width} pixels (height×width), and {max_pixels} are allowed"
        raise DataError(f"{found}; make it smaller")
    return opened


def _storage(opened: Image.Image) -> tuple[object, ...]:
    """What Pillow decodes with: the mode as stored, like "RGB;16B"; then the largest value of a PPM, other numbers."""
    arguments = [each[3] for each in getattr(opened, "tile", ())][:1] or [None]
    return arguments[0] if isinstance(arguments[0], tuple) and arguments[0] else (arguments[0],)


def _is_deep(opened: Image.Image) -> bool:
    """Whether colours are stored in more than 8 bits, which Pillow silently truncates."""
    stored, *numbers = _storage(opened)
    return ";16" in str(stored) or (opened.format == "PPM" and any(isinstance(n, int) and n > 255 for n in numbers))


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """Find what displays an image upright; None: it is, or a damaged EXIF block does not say how it is stored."""
    try:
        return _UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # Pillow raises many types over a damaged block, and the pixels are sound
        return None


def _channels_of(opened: Image.Image, where: str, *, converts: bool) -> int:
    if opened.mode in _CHANNELS:
        return _CHANNELS[opened.mode]
    if opened.mode not in _CONVERTIBLE:
        raise DataError(f"{where} has pixels of mode {opened.mode}, and 8 bits per channel are read; convert it")
    if not converts:
        raise DataError(f"{where} has pixels of mode {opened.mode}; set channels to 1 or 3 to have it converted")
    return 0


def _to_array(
    opened: Image.Image, where: str, shape: tuple[int, int, int], background: Background | None
) -> NDArray[np.uint8]:
    height, width, channels = shape
    pixels = _without_alpha(opened, where, background).convert(_MODES[channels])
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.uint8).reshape(shape)  # (H, W) or (H, W, C) -> (H, W, C)


def _without_alpha(opened: Image.Image, where: str, background: Background | None) -> Image.Image:
    """Composite transparent pixels on the background; an image without any keeps its colours exactly."""
    if not opened.has_transparency_data:
        return opened
    layered = opened.convert("LA" if _CHANNELS.get(opened.mode) == 1 else "RGBA")
    colours, alpha = layered.convert(layered.mode[:-1]), layered.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours
    if background is None:
        found = f"{where} has transparent pixels (mode {opened.mode})"
        raise DataError(f"{found}; set background to white or black, on which they are composited, or set channels")
    flat = Image.new(colours.mode, colours.size, (_LEVELS[background],) * len(colours.getbands()))
    flat.paste(colours, mask=alpha)
    return flat


def _check_complete(error: Exception, where: str) -> None:
    """Raise a DataError when a decoder failed because the file ends early, as its text alone says."""
    if "truncated" in str(error).lower():
        raise DataError(f"{where} is cut off ({_summary(error)}); restore or remove it") from error


def _summary(error: Exception) -> str:
    text = str(error).partition("<_io")[0].strip()  # Pillow names the memory address of its buffer
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


@dataclass(frozen=True, kw_only=True)
class _FittedPixels:
    """Images of an array that are resized and converted when they are read."""

    base: Pixels
    shape: tuple[int, int, int]
    background: Background | None
    where: Callable[[int], str]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        fitted = np.empty((len(rows), *self.shape), np.uint8)
        for k, (row, image) in enumerate(zip(rows.tolist(), self.base.read(rows), strict=True)):
            check_cancelled()
            opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            fitted[k] = _to_array(opened, self.where(row), self.shape, self.background)
        return fitted


def fit_pixels(
    source: DatasetSource, pixels: Pixels, shape: tuple[int, int, int], where: Callable[[int], str]
) -> tuple[Pixels, tuple[int, int, int]]:
    """Resize and convert images of an array to the source's size and channels, if set; return them and their shape.

    The second of 2 channels, and the fourth of 4, is the alpha channel, as in image files.
    """
    colours = {2: 1, 4: 3}.get(shape[2], shape[2])
    target = (*(source.size or shape[:2]), source.channels or colours)
    if target == shape:
        return pixels, shape
    return _FittedPixels(base=pixels, shape=target, background=source.composited_on, where=where), target
