"""Rows as bytes on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from fount.v1 import augmentation_pb2 as pb
from service.augmentation.rows import NO_ROW, MadeRows, Provenance
from service.rpc.chunks import rows_to_responses


def provenance(count: int, **columns) -> Provenance:
    u = np.arange(count, dtype=np.uint64)
    values = {"sources": np.full(count, 4, np.uint8), "source_rows": np.full(count, NO_ROW, np.uint64)}
    return Provenance(**(values | {"seeds": u + np.uint64(2**63), "indices": u} | columns))


def made(count: int = 5, **columns) -> MadeRows:
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    values = {"first_index": 10, "images": images, "labels": np.arange(count, dtype=np.uint32), "rejected": {}}
    return MadeRows(**(values | {"provenance": None, "source_counts": {}} | columns))


def chunks(rows: MadeRows, chunk_bytes: int = 1 << 20, kind=pb.PullDatasetResponse):
    return [kind.FromString(each).chunk for each in rows_to_responses(rows, chunk_bytes=chunk_bytes)]


@pytest.mark.parametrize("kind", [pb.PullDatasetResponse, pb.AugmentResponse], ids=["pull", "augment"])
def test_a_chunk_is_what_protobuf_would_have_made(kind) -> None:
    rows = made(groups=np.full(5, 2, np.uint32), weights=np.arange(5, dtype=np.uint32), provenance=provenance(5))
    (chunk,) = chunks(rows, kind=kind)
    expected = pb.RowChunk(groups=[2] * 5, weights=range(5))
    expected.samples.start_index, expected.samples.count, expected.samples.data = 10, 5, bytes(range(20))
    expected.samples.labels.extend(range(5))
    expected.provenance.sources.extend([pb.SOURCE_SYNTHESISED] * 5)
    expected.provenance.source_rows.extend([2**64 - 1] * 5)
    expected.provenance.seeds.extend(range(2**63, 2**63 + 5))
    expected.provenance.indices.extend(range(5))
    assert chunk == expected


def test_floats_keep_their_values() -> None:
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    table[1] = np.nan
    (chunk,) = chunks(
        made(provenance=provenance(5, transforms=table, confidences=table[:, 0], copy_ratios=table[:, 1]))
    )
    np.testing.assert_array_equal(np.array(chunk.provenance.transforms, np.float32), table.reshape(-1))
    np.testing.assert_array_equal(np.array(chunk.provenance.confidences, np.float32), table[:, 0])
    np.testing.assert_array_equal(np.array(chunk.provenance.copy_ratios, np.float32), table[:, 1])


def test_columns_are_cut_with_their_rows() -> None:
    rows = made(provenance=provenance(5, attempts=np.arange(5, dtype=np.uint32)), rejected={3: 8})
    parts = chunks(rows, chunk_bytes=8)
    assert [list(each.provenance.attempts) for each in parts] == [[0, 1], [2, 3], [4]]
    assert [each.samples.start_index for each in parts] == [10, 12, 14]
    assert [[error.index for error in each.samples.errors] for each in parts] == [[], [13], []]


def test_a_rejected_slot_reports_how_many_samples_were_tried() -> None:
    (chunk,) = chunks(made(rejected={0: 8}))
    (error,) = chunk.samples.errors
    assert error.status.message == "none of 8 samples for row 10 was accepted; the slot stays empty"


def test_images_larger_than_a_chunk_are_sent_in_parts() -> None:
    parts = [each.samples for each in chunks(made(2), chunk_bytes=3)]
    parts_seen = [(each.start_index, each.part_offset, each.part_total, len(each.data)) for each in parts]
    assert parts_seen == [(10, 0, 4, 3), (10, 3, 4, 1), (11, 0, 4, 3), (11, 3, 4, 1)]


def test_no_rows_are_no_chunks() -> None:
    assert chunks(made(0)) == []
