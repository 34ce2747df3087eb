"""Trim texts: rows of a fixed number of bytes, as workers return them, become the UTF-8 texts that clients get.

A text ends at its first zero byte, before the request's `stop`, and before a character that the limit of bytes cut. The
prefix is part of it, and neither is searched for within the prefix.
"""

from __future__ import annotations

import codecs
from dataclasses import replace

from fount.v1 import model_pb2
from service.calls import Failure, FailureCode
from service.scheduler.work import Piece

__all__ = ["text_spec", "trim_texts"]


def text_spec() -> model_pb2.SampleSpec:
    """Write how a client is to read texts."""
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_TEXT,
        dtype=model_pb2.DTYPE_UINT8,
        dims=[-1],
        layout=model_pb2.SampleSpec.LAYOUT_T,
        value_range=model_pb2.ValueRange(min=0.0, max=255.0),
        encoding=model_pb2.ENCODING_UINT8,
    )


def trim_texts(piece: Piece, *, prefix: bytes | None, stop: bytes | None) -> tuple[Piece, list[bytes]]:
    """Trim the texts of a piece.

    Args:
        piece: rows are (n, max_text_bytes) uint8.
        prefix: the beginning of every text; None: nothing is given.
        stop: texts end before its first occurrence after the prefix; None: nowhere.

    Returns:
        The piece, with a failure for each text that is not UTF-8; and n texts, those of failed rows empty.
    """
    failures, texts, given = dict(piece.failures), [], len(prefix or b"")
    for row, values in enumerate(piece.rows):
        text = b"" if row in failures else _cut(values.tobytes(), given, stop)
        try:
            text = _whole_characters(text)
        except UnicodeDecodeError as error:
            failures[row], text = _not_utf8(error), b""
        texts.append(text)
    return replace(piece, failures=failures), texts


def _cut(text: bytes, given: int, stop: bytes | None) -> bytes:
    """Cut a text at the first zero byte, and then at `stop`, both after the given bytes."""
    for end in (b"\0", stop):
        place = text.find(end, given) if end else -1
        text = text if place < 0 else text[:place]
    return text


def _whole_characters(text: bytes) -> bytes:
    """Remove the bytes of a last character that is not complete.

    Raises:
        UnicodeDecodeError: bytes before it are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoder.decode(text)
    incomplete, _ = decoder.getstate()
    return text[: len(text) - len(incomplete)]


def _not_utf8(error: UnicodeDecodeError) -> Failure:
    message = (
        f"the model drew bytes that are not UTF-8, {error.object[error.start : error.start + 4].hex(' ')} at byte "
        f"{error.start}; draw another index or seed, or lower temperature, top_k or top_p"
    )
    return Failure(code=FailureCode.DATA_LOSS, reason="NOT_UTF8", message=message)
