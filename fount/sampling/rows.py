"""Rows that a client sends: arrays of pictures, vectors or latents, cut into messages.

Whether their shape is that of the model is checked by the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.sampling.arguments import Arguments, SupportsArray, array_of
from fount.v1 import model_pb2, sampling_pb2

__all__ = ["RowsLike", "latents_of", "masks_of", "messages_of", "rows_of", "texts_of"]

RowsLike = SupportsArray | list[Any] | tuple[Any, ...]
"""An array, a tensor or a sequence.

Pictures are (N, H, W, C) or (N, H, W), uint8 or floats in the model's own value range; (H, W, C) of 1, 3 or 4 channels,
or (H, W) uint8, is one picture. Vectors and latents are (N, D) floats, or (D,) for one. Texts, which models of text
score, are a sequence of str.
"""

_MESSAGE_BYTES = 2**20
_MESSAGE_TEXTS = 4096
_CHANNELS = (1, 3, 4)


def rows_of(name: str, value: Any, arguments: Arguments) -> NDArray[Any]:
    """Convert rows to (N, ...) uint8 or float32, as `RowsLike` describes them; a problem is added for others."""
    array = _floats_or_bytes(array_of(name, value, "pictures or vectors"))
    is_picture = array.dtype == np.uint8
    if array.ndim == 3 and array.shape[-1] in _CHANNELS:
        array = array[None]  # (H, W, C) -> (1, H, W, C)
    elif array.ndim == (2 if is_picture else 1):
        array = array[None]  # (H, W) -> (1, H, W), or (D,) -> (1, D)
    _check(name, array, (3, 4) if is_picture else (2, 3, 4), (np.uint8, np.float32), arguments)
    return array


def texts_of(name: str, value: Any, arguments: Arguments) -> NDArray[Any] | None:
    """Convert a sequence of texts, or one text, to (N,) objects, each UTF-8; None for anything else."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, np.ndarray) and texts.dtype.kind in "UO":
        texts = texts.ravel().tolist()
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(each, str) for each in texts):
        return None
    encoded = np.empty(len(texts), object)
    for row, text in enumerate(texts):
        encoded[row] = arguments.utf8_of(name, text)
        if not text:
            arguments.add(name, f"holds an empty text at {row}; give one character or more")
    return encoded


def latents_of(name: str, value: Any, arguments: Arguments) -> NDArray[Any]:
    """Convert latents to (N, D) float32; a problem is added for others."""
    array = _floats_or_bytes(array_of(name, value, "latents"))
    if array.ndim == 1:
        array = array[None]  # (D,) -> (1, D)
    _check(name, array, (2,), (np.float32,), arguments)
    return array


def masks_of(name: str, value: Any, shape: tuple[int, ...], arguments: Arguments) -> NDArray[Any]:
    """Convert masks of pictures of a shape to (N, *shape) uint8; a problem is added for others.

    Masks without channels are of all channels of a pixel.
    """
    array = array_of(name, value, "zeros and ones")
    if array.dtype == np.bool:
        array = array.astype(np.uint8)
    sides = shape[:2]
    if array.shape in (shape, sides):
        array = array[None]  # (H, W, ...) -> (1, H, W, ...)
    if array.shape[1:] == sides and len(shape) == 3:
        array = array[..., None]  # (N, H, W) -> (N, H, W, 1)
    fits = array.shape[1:3] == sides and array.shape[3:] in (shape[2:], (1,))
    if not fits or not array.size or array.dtype.kind not in "iu":
        expected = f"(rows, {', '.join(map(str, shape))}) zeros and ones, as the pictures"
        arguments.add(name, f"are {array.dtype} of shape {array.shape}; give {expected}, one row or more")
    elif len(others := array[~np.isin(array, (0, 1))]):
        arguments.add(name, f"hold {others[0]}; give 1 where a value is given, and 0 where it is drawn")
    else:
        array = np.broadcast_to(array, (len(array), *shape)).astype(np.uint8)
    return array


def messages_of(rows: NDArray[Any], labels: NDArray[np.uint32] | None) -> Iterator[sampling_pb2.InputRows]:
    """Cut (N, ...) rows, with (N,) labels or none, into messages of at most 1 MiB, or one row, as they are taken."""
    if rows.dtype == object:
        yield from _messages_of_texts(rows, labels)
        return
    is_bytes = rows.dtype == np.uint8
    dtype = model_pb2.DTYPE_UINT8 if is_bytes else model_pb2.DTYPE_FLOAT32
    step = max(1, _MESSAGE_BYTES // max(1, rows.nbytes // max(1, len(rows))))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        ids = None if labels is None else labels[first : first + step].tolist()
        yield sampling_pb2.InputRows(count=len(part), dtype=dtype, labels=ids, data=part.tobytes())


def _messages_of_texts(texts: NDArray[Any], labels: NDArray[np.uint32] | None) -> Iterator[sampling_pb2.InputRows]:
    """Cut (N,) texts in UTF-8 into messages of at most 4096 and 1 MiB, or one text."""
    first, size = 0, 0
    for row, text in enumerate([*texts, None]):
        if text is None or row - first == _MESSAGE_TEXTS or (size and size + len(text) > _MESSAGE_BYTES):
            part = texts[first:row].tolist()
            yield sampling_pb2.InputRows(
                count=len(part),
                dtype=model_pb2.DTYPE_UINT8,
                labels=None if labels is None else labels[first:row].tolist(),
                lengths=[len(each) for each in part],
                data=b"".join(part),
            )
            first, size = row, 0
        size += len(text or b"")


def _floats_or_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Convert floats of any size to little-endian float32."""
    return array.astype("<f4", copy=False) if array.dtype.kind == "f" else array


def _check(
    name: str, array: NDArray[Any], ndims: tuple[int, ...], dtypes: tuple[type, ...], arguments: Arguments
) -> None:
    if array.dtype not in dtypes or array.ndim not in ndims or not array.size:
        expected = "(rows, latent_dim) floats"
        if len(ndims) > 1:
            expected = "(rows, height, width, channels) uint8 or floats, or (rows, components) floats"
        arguments.add(name, f"are {array.dtype} of shape {array.shape}; give {expected}, one row or more")
