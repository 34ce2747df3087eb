"""Cut samples and rows into the chunks that clients get: at most 1 MiB of data each, as framed bytes.

A `Piece` of a Sample stream, or the `MadeRows` of a pull, enter; serialized responses leave, with failed samples and
rejected slots named. Integers go through a message; pixels and floats are framed next to it (`wire_format.py`), because
the protobuf runtime takes an array of floats element by element, and copies pixels twice.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.augmentation.rows import MadeRows, Provenance
from service.calls import Failure, FailureCode
from service.config import CHUNK_BYTES
from service.domain import Encoding
from service.rpc.status import failure_to_status
from service.rpc.wire_format import floats_field, frame_chunk, frame_rows
from service.scheduler.work import Piece

__all__ = ["image_spec", "join_pieces", "piece_to_responses", "responses_of", "rows_to_responses", "sample_spec"]


def sample_spec(dims: tuple[int, ...], value_range: tuple[float, float], encoding: Encoding) -> model_pb2.SampleSpec:
    """Write how a client is to read the samples of a model in an encoding; the range is that of its float samples.

    Dims other than (H, W, C) are of vectors.
    """
    as_float = encoding is Encoding.FLOAT32
    low, high = value_range if as_float else (0.0, 255.0)
    spec = image_spec(dims)
    if len(dims) != len("HWC"):
        spec.modality, spec.layout = model_pb2.SampleSpec.MODALITY_VECTOR, model_pb2.SampleSpec.LAYOUT_C
    spec.dtype = model_pb2.DTYPE_FLOAT32 if as_float else model_pb2.DTYPE_UINT8
    spec.value_range.min, spec.value_range.max = low, high
    spec.encoding = model_pb2.Encoding.Value(f"ENCODING_{encoding.name}")
    return spec


def image_spec(shape: tuple[int, ...]) -> model_pb2.SampleSpec:
    """Write how a client is to read raw images of (H, W, C) uint8."""
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_IMAGE,
        dtype=model_pb2.DTYPE_UINT8,
        dims=shape,
        layout=model_pb2.SampleSpec.LAYOUT_HWC,
        value_range=model_pb2.ValueRange(min=0.0, max=255.0),
        encoding=model_pb2.ENCODING_UINT8,
    )


# --- Samples ----------------------------------------------------------------------------------------------------------


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Join consecutive pieces of one stream, one or more, to one."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0].start_index
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    return Piece(
        start_index=first,
        rows=np.concatenate([piece.rows for piece in pieces]),
        labels=np.concatenate(labels) if labels else None,
        failures={
            piece.start_index - first + row: failure for piece in pieces for row, failure in piece.failures.items()
        },
    )


def piece_to_responses(
    piece: Piece, encoding: Encoding, *, texts: list[bytes] | None = None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """Cut a piece into framed chunks of at most `chunk_bytes` of data, in order.

    A sample larger than that is sent alone, in parts. Texts, one a row, are sent in place of the rows.
    """
    count, first = len(piece.rows), 0
    sample_bytes = max(1, piece.rows.nbytes // count)
    files = texts
    if encoding is Encoding.PNG:
        files = [b"" if row in piece.failures else _png(image) for row, image in enumerate(piece.rows)]
    rows = np.ascontiguousarray(piece.rows)
    while first < count:
        end = _end_of_chunk(files, first, count, sample_bytes, chunk_bytes)
        chunk = sampling_pb2.SampleChunk(
            start_index=piece.start_index + first,
            count=end - first,
            labels=None if piece.labels is None else piece.labels[first:end].tolist(),
            lengths=None if files is None else [len(each) for each in files[first:end]],
        )
        for row in sorted(piece.failures):
            if first <= row < end:
                chunk.errors.append(_sample_error(piece.start_index + row, piece.failures[row]))
        data = rows[first:end].reshape(-1).view(np.uint8).data if files is None else b"".join(files[first:end])
        for part in _parts(chunk, data, chunk_bytes):
            yield frame_chunk(chunk, part)
        first = end


async def responses_of(piece: Piece, encoding: Encoding, texts: list[bytes] | None = None) -> Iterable[bytes]:
    """Cut a piece into framed chunks; images are compressed in a thread, so that the event loop does not wait."""
    if encoding is Encoding.PNG:
        return await asyncio.to_thread(lambda: list(piece_to_responses(piece, encoding)))
    return piece_to_responses(piece, encoding, texts=texts)


def _end_of_chunk(files: list[bytes] | None, first: int, count: int, sample_bytes: int, chunk_bytes: int) -> int:
    if files is None:
        return min(count, first + max(1, chunk_bytes // sample_bytes))
    end, size = first + 1, len(files[first])
    while end < count and size + len(files[end]) <= chunk_bytes:
        size += len(files[end])
        end += 1
    return end


def _parts(chunk: sampling_pb2.SampleChunk, data: bytes | memoryview, chunk_bytes: int) -> Iterator[bytes | memoryview]:
    """Yield the data of a chunk, in parts when it is too large; sets the chunk's part fields before each."""
    if len(data) <= chunk_bytes:
        yield data
        return
    chunk.part_total = len(data)
    for offset in range(0, len(data), chunk_bytes):
        chunk.part_offset = offset
        yield data[offset : offset + chunk_bytes]


def _png(image: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image  # (H, W, 1) -> (H, W) for grey
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _sample_error(index: int, failure: Failure) -> sampling_pb2.SampleError:
    return sampling_pb2.SampleError(index=index, status=failure_to_status(failure))


# --- Rows of plans ----------------------------------------------------------------------------------------------------


def rows_to_responses(made: MadeRows, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cut rows into framed chunks of at most `chunk_bytes` of data, in order.

    A row larger than that is sent alone, in parts, each with its label and provenance.
    """
    count = len(made.images)
    size = max(1, chunk_bytes // max(1, made.images[0].nbytes)) if count else 1
    for first in range(0, count, size):
        chosen = slice(first, min(first + size, count))
        samples, rows, provenance = _samples(made, chosen), _rows(made, chosen), _provenance(made.provenance, chosen)
        data = made.images[chosen].reshape(-1).data  # (n, H, W, C) -> (n * H * W * C,)
        for part in _parts(samples, data, chunk_bytes):
            yield frame_rows(rows, provenance, samples, part)


def _samples(made: MadeRows, chosen: slice) -> sampling_pb2.SampleChunk:
    rejected = sorted(row for row in made.rejected if chosen.start <= row < chosen.stop)
    return sampling_pb2.SampleChunk(
        start_index=made.first_index + chosen.start,
        count=chosen.stop - chosen.start,
        labels=None if made.labels is None else made.labels[chosen].tolist(),
        errors=[_rejection(made.first_index + row, made.rejected[row]) for row in rejected],
    )


def _rejection(index: int, attempts: int) -> sampling_pb2.SampleError:
    message = f"none of {attempts} samples for row {index} was accepted; the slot stays empty"
    return _sample_error(index, Failure(code=FailureCode.ABORTED, reason="REJECTED", message=message))


def _rows(made: MadeRows, chosen: slice) -> augmentation_pb2.RowChunk:
    return augmentation_pb2.RowChunk(
        groups=None if made.groups is None else made.groups[chosen].tolist(),
        weights=None if made.weights is None else made.weights[chosen].tolist(),
    )


def _provenance(provenance: Provenance | None, chosen: slice) -> bytes:
    """Serialize the RowProvenance of some rows; empty when none is reported."""
    if provenance is None:
        return b""
    message = augmentation_pb2.RowProvenance(
        sources=provenance.sources[chosen].tolist(),
        source_rows=provenance.source_rows[chosen].tolist(),
        seeds=provenance.seeds[chosen].tolist(),
        indices=provenance.indices[chosen].tolist(),
        attempts=None if provenance.attempts is None else provenance.attempts[chosen].tolist(),
    )
    parts = [message.SerializeToString()]
    for name in ("transforms", "confidences", "copy_ratios"):
        column = getattr(provenance, name)
        if column is not None:
            parts.append(floats_field(augmentation_pb2.RowProvenance, name, column[chosen]))
    return b"".join(parts)
