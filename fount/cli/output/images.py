"""Draw samples as Pillow images, alone or in a captioned grid; used by commands, never while serving a request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fount.names import normal_name

__all__ = ["drawable", "image_grid", "paired_sheet", "to_pillow", "to_uint8", "variants_sheet"]

_MARGIN = 8  # pixels around and between tiles
_CAPTION_SIZE = 13  # pixels
_CAPTION_HEIGHT = _CAPTION_SIZE + 5
_MAX_PAIRS = 10  # in a line of a sheet
_MIN_TILE = 72  # pixels; smaller images are scaled up to it
_BACKGROUND, _TEXT_COLOUR = "white", "black"
_NO_CHARACTER = "\uffff"  # a code point that is no character, so fonts draw the sign for a missing one


def to_uint8(images: NDArray[Any], value_range: tuple[float, float] = (0.0, 1.0)) -> NDArray[np.uint8]:
    """Convert floats in a value range (a, b) to round(255 (x - a) / (b - a)), clipped to 0..255; NaN becomes 0.

    Images of uint8 are returned unchanged.
    """
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    low, high = value_range
    scaled = np.rint(255.0 * (np.asarray(images, np.float64) - low) / (high - low))
    return np.where(np.isnan(scaled), 0.0, np.clip(scaled, 0, 255)).astype(np.uint8)


def to_pillow(image: NDArray[np.uint8]) -> Image.Image:
    """Convert one sample, (H, W) or (H, W, 1) grey or (H, W, 3) RGB, to a Pillow image."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise ValueError(f"an image is (H, W), (H, W, 1) or (H, W, 3), not {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image))


def image_grid(
    images: NDArray[Any],
    labels: Sequence[object] | NDArray[Any] | None = None,
    *,
    columns: int | None = None,
    scale: int | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Image.Image:
    """Draw images in a grid, each with its caption above; grey, or RGB for RGB images.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8, or floats in `value_range`; N at least 1.
        labels: N captions; unset, the position of each image.
        columns: images per row; unset, about as many as rows.
        scale: integer magnification by nearest neighbour; unset, small images are scaled up to be visible.
        value_range: black and white of floats.
    """
    captions = [str(label) for label in (range(len(images)) if labels is None else labels)]
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if not len(images) or len(captions) != len(images) or columns < 1 or (scale is not None and scale < 1):
        raise ValueError(
            f"cannot draw a grid of {len(images)} images, {len(captions)} labels, columns {columns}, scale {scale}"
        )
    tiles = [to_pillow(image) for image in to_uint8(np.asarray(images), value_range)]
    factor = max(1, math.ceil(_MIN_TILE / min(tiles[0].size))) if scale is None else scale
    return _sheet(tiles, captions, min(columns, len(tiles)), factor)


def variants_sheet(
    originals: NDArray[np.uint8], variants: NDArray[np.uint8], captions: Sequence[object], *, scale: int | None = None
) -> Image.Image:
    """Draw a row per original: the original under its caption, then its variants, numbered from 1.

    Args:
        originals: (N, H, W, 1 or 3) uint8, N at least 1.
        variants: (N, K, H, W, 1 or 3) uint8, K at least 1.
        captions: N texts.
        scale: as in `image_grid`.
    """
    if len({len(originals), len(variants), len(captions)}) != 1 or originals.shape[1:] != variants.shape[2:]:
        raise ValueError(
            f"cannot draw originals {originals.shape}, variants {variants.shape}, {len(captions)} captions"
        )
    lines = np.concatenate([originals[:, None], variants], axis=1)  # (N, 1 + K, H, W, C)
    above = [text for caption in captions for text in (caption, *range(1, lines.shape[1]))]
    return image_grid(lines.reshape(-1, *lines.shape[2:]), above, columns=lines.shape[1], scale=scale)


def paired_sheet(
    above: NDArray[np.uint8], below: NDArray[np.uint8], captions: Sequence[object], *, scale: int | None = None
) -> Image.Image:
    """Draw lines of at most ten images, each image of `above` under its caption and that of `below` underneath.

    Args:
        above: (N, H, W, 1 or 3) uint8, N at least 1.
        below: of the same shape.
        captions: N texts.
        scale: as in `image_grid`.
    """
    if above.shape != below.shape or len(captions) != len(above):
        raise ValueError(f"cannot draw pairs of {above.shape} and {below.shape} under {len(captions)} captions")
    columns, lines, texts = min(len(above), _MAX_PAIRS), [], []
    for first in range(0, len(above), columns):
        part = captions[first : first + columns]
        blank = np.full((columns - len(part), *above.shape[1:]), 255, np.uint8)
        lines += [images for half in (above, below) for images in (half[first : first + columns], blank)]
        texts += [*part, *[""] * (2 * columns - len(part))]
    return image_grid(np.concatenate(lines), texts, columns=columns, scale=scale)


def _sheet(tiles: Sequence[Image.Image], captions: Sequence[str], columns: int, scale: int) -> Image.Image:
    width, height = tiles[0].width * scale, tiles[0].height * scale
    across, down = width + _MARGIN, height + _CAPTION_HEIGHT + _MARGIN
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new(tiles[0].mode, (columns * across + _MARGIN, rows * down + _MARGIN), _BACKGROUND)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = _MARGIN + i % columns * across, _MARGIN + i // columns * down
        _write_caption(sheet, caption, left, top, width)
        sheet.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top + _CAPTION_HEIGHT))
    return sheet


def _write_caption(sheet: Image.Image, caption: str, left: int, top: int, width: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_CAPTION_SIZE)
    characters = drawable(caption, font)
    shown = "".join(characters)
    while characters and draw.textlength(shown, font=font) > width:
        characters.pop()
        shown = "".join([*characters, "..."]) if characters else ""
    draw.text((left + width / 2, top + _CAPTION_SIZE), shown, fill=_TEXT_COLOUR, font=font, anchor="ms")


def drawable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Split a text into its characters, those that the font lacks as escapes, so that two names never look the same.

    Pillow's built-in font has hardly more than ASCII.
    """

    def glyph(character: str) -> tuple[object, bytes]:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    missing = glyph(_NO_CHARACTER)
    return [
        each if each.isprintable() and glyph(each) != missing else each.encode("unicode_escape").decode()
        for each in normal_name(text)
    ]
