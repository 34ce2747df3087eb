"""From made rows to the chunks clients get: at most 1 MiB of data each, provenance in columns.

Integers go through the message, floats and pixels are framed beside it: the runtime takes an array of floats element by
element, and copies pixels twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.augmentation.made_rows import MadeRows, Origins
from service.config import CHUNK_BYTES
from service.rpc.wire_format import floats_field, frame_rows

__all__ = ["image_spec", "rows_to_responses"]


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
