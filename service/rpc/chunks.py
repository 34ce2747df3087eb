"""From pieces to chunks: the bytes clients get.

A `Piece` enters, framed SampleChunks of at most 1 MiB leave, with failed samples named.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from numpy.typing import NDArray
from PIL import Image

from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.augmentation.open_plan import MadeRows, Origins
from service.config import CHUNK_BYTES
from service.domain import Encoding, Failure, ServedModel
from service.rpc.wire_format import floats_field, frame_chunk, frame_rows
from service.scheduler.work import Piece

__all__ = ["image_spec", "join_pieces", "piece_to_responses", "rows_to_responses", "sample_spec"]


def sample_spec(model: ServedModel, encoding: Encoding) -> model_pb2.SampleSpec:
    """How a client is to read the samples of a model in an encoding."""
    as_float = encoding is Encoding.FLOAT32
    low, high = model.value_range if as_float else (0.0, 255.0)
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_IMAGE,
        dtype=model_pb2.DTYPE_FLOAT32 if as_float else model_pb2.DTYPE_UINT8,
        dims=model.sample_dims,
        layout=model_pb2.SampleSpec.LAYOUT_HWC,
        value_range=model_pb2.ValueRange(min=low, max=high),
        encoding=model_pb2.Encoding.Value(f"ENCODING_{encoding.name}"),
    )


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


def piece_to_responses(piece: Piece, encoding: Encoding, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cut a piece into framed chunks of at most `chunk_bytes` of data, in order.

    A sample larger than that is sent alone, in parts.
    """
    count, first = len(piece.rows), 0
    sample_bytes = max(1, piece.rows[0].nbytes)
    files = _png_files(piece) if encoding is Encoding.PNG else None
    rows = np.ascontiguousarray(piece.rows)
    while first < count:
        end = _end_of_chunk(files, first, count, sample_bytes, chunk_bytes)
        chunk = sampling_pb2.SampleChunk(
            start_index=piece.start_index + first,
            count=end - first,
            labels=[] if piece.labels is None else piece.labels[first:end].tolist(),
            lengths=[] if files is None else [len(each) for each in files[first:end]],
            errors=[_sample_error(piece, row) for row in sorted(piece.failures) if first <= row < end],
        )
        data = rows[first:end].reshape(-1).view(np.uint8).data if files is None else b"".join(files[first:end])
        yield from [frame_chunk(chunk, data)] if len(data) <= chunk_bytes else _parts(chunk, data, chunk_bytes)
        first = end


def _end_of_chunk(files: list[bytes] | None, first: int, count: int, sample_bytes: int, chunk_bytes: int) -> int:
    if files is None:
        return min(count, first + max(1, chunk_bytes // sample_bytes))
    end, size = first + 1, len(files[first])
    while end < count and size + len(files[end]) <= chunk_bytes:
        size += len(files[end])
        end += 1
    return end


def _parts(chunk: sampling_pb2.SampleChunk, data: bytes | memoryview, chunk_bytes: int) -> Iterator[bytes]:
    chunk.part_total = len(data)
    for offset in range(0, len(data), chunk_bytes):
        chunk.part_offset = offset
        yield frame_chunk(chunk, data[offset : offset + chunk_bytes])


def _png_files(piece: Piece) -> list[bytes]:
    return [b"" if row in piece.failures else _png(image) for row, image in enumerate(piece.rows)]


def _png(image: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image  # (H, W, 1) -> (H, W) for grey
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _sample_error(piece: Piece, row: int) -> sampling_pb2.SampleError:
    failure: Failure = piece.failures[row]
    status = status_pb2.Status(code=failure.code, message=failure.message)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=failure.reason, domain="fount"))
    status.details.append(detail)
    return sampling_pb2.SampleError(index=piece.start_index + row, status=status)


# FOLDED FROM service.rpc.chunks:
# From made rows to the chunks clients get: at most 1 MiB of data each, provenance in columns. Integers go
# through the message, floats and pixels are framed beside it: the runtime takes an array of floats element by
# element, and copies pixels twice.


def image_spec(shape: tuple[int, int, int]) -> model_pb2.SampleSpec:
    """How a client is to read the images of rows: raw bytes of (H, W, C)."""
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_IMAGE,
        dtype=model_pb2.DTYPE_UINT8,
        dims=shape,
        layout=model_pb2.SampleSpec.LAYOUT_HWC,
        value_range=model_pb2.ValueRange(min=0.0, max=255.0),
        encoding=model_pb2.ENCODING_UINT8,
    )


def rows_to_responses(made: MadeRows, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cut rows into framed chunks of at most `chunk_bytes` of data, in order.

    A row larger than that is sent alone, in parts; all of them tell its label and provenance.
    """
    count = len(made.images)
    size = max(1, chunk_bytes // max(1, made.images[0].nbytes)) if count else 1
    for first in range(0, count, size):
        part = slice(first, min(first + size, count))
        samples, rows, provenance = _samples(made, part), _rows(made, part), _provenance(made.origins, part)
        data = made.images[part].reshape(-1).data  # (n, H, W, C) -> (n * H * W * C,)
        if len(data) <= chunk_bytes:
            yield frame_rows(rows, provenance, samples, data)
            continue
        samples.part_total = len(data)
        for offset in range(0, len(data), chunk_bytes):
            samples.part_offset = offset
            yield frame_rows(rows, provenance, samples, data[offset : offset + chunk_bytes])


def _samples(made: MadeRows, part: slice) -> sampling_pb2.SampleChunk:
    rejected = [row for row in made.rejected if part.start <= row < part.stop]
    return sampling_pb2.SampleChunk(
        start_index=made.first_index + part.start,
        count=part.stop - part.start,
        labels=None if made.labels is None else made.labels[part].tolist(),
        errors=[_rejection(made.first_index + row, made.rejected[row]) for row in sorted(rejected)],
    )


def _rejection(index: int, attempts: int) -> sampling_pb2.SampleError:
    message = f"none of {attempts} samples for row {index} was accepted; the slot stays empty"
    status = status_pb2.Status(code=code_pb2.ABORTED, message=message)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="REJECTED", domain="fount"))
    status.details.append(detail)
    return sampling_pb2.SampleError(index=index, status=status)


def _rows(made: MadeRows, part: slice) -> augmentation_pb2.RowChunk:
    return augmentation_pb2.RowChunk(
        groups=None if made.groups is None else made.groups[part].tolist(),
        weights=None if made.weights is None else made.weights[part].tolist(),
    )


def _provenance(origins: Origins | None, part: slice) -> bytes:
    """A serialized RowProvenance of some rows; empty where nobody asked."""
    if origins is None:
        return b""
    message = augmentation_pb2.RowProvenance(
        sources=origins.sources[part].tolist(),
        source_rows=origins.source_rows[part].tolist(),
        seeds=origins.seeds[part].tolist(),
        indices=origins.indices[part].tolist(),
        attempts=None if origins.attempts is None else origins.attempts[part].tolist(),
    )
    floats = {
        "transforms": origins.transforms,
        "confidences": origins.confidences,
        "copy_ratios": origins.copy_ratios,
    }
    kind = augmentation_pb2.RowProvenance
    given = [floats_field(kind, name, column[part]) for name, column in floats.items() if column is not None]
    return b"".join([message.SerializeToString(), *given])
