"""Pull the rows of a plan: where they come from, that they are always equal, how streams start, resume and end."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fount.address import Addresses
from fount.transforms import COLUMNS, draw, draw_provenance
from fount.v1 import augmentation_pb2 as pb
from service.augmentation.generation import attempt_seed
from service.augmentation.slots import RealMode, Source
from service.calls import ManipulationItem, RangeItem
from service.domain import Dtype
from service.workers.memory_models import memory_sample, memory_transform
from tests.contract.augmenting import (
    EVERYTHING,
    GENERATOR,
    POLICY,
    give_plan,
    rows_of,
)

FULL, NONE = pb.PROVENANCE_LEVEL_FULL, pb.PROVENANCE_LEVEL_NONE
OUT_OF_BAG = pb.PullDatasetRequest.PART_OUT_OF_BAG


def addressed(seed: int, indices) -> Addresses:
    return Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)


def of_source(rows, source: Source):
    return [row for row in rows if row.source == source]


async def test_the_header_describes_the_stream(service) -> None:
    header, _ = await service.pull()
    assert (header.plan_id, header.rows, header.first_index, header.end_index) == ("planned", 150, 0, 150)
    assert (list(header.sample_spec.dims), list(header.classes)) == ([4, 4, 1], ["zero", "one", "two"])
    assert header.dataset_digest == service.issuer.plans[b"plan"].spec.dataset.digest
    assert [(each.role, each.model.name, each.numerics) for each in header.models] == [
        ("generator", "painter", "memory"), ("classifier", "reader", "memory"), ("transformer", "transforms", "memory"),
    ]  # fmt: skip


async def test_rows_are_those_of_the_plan(service) -> None:
    _, chunks = await service.pull()
    rows = rows_of(chunks)
    assert [row.index for row in rows] == list(range(150))
    assert Counter((row.label, row.source) for row in rows) == EVERYTHING


async def test_real_rows_are_those_of_the_data_set(service) -> None:
    _, chunks = await service.pull()
    split = service.issuer.plans[b"plan"].spec.split
    real = of_source(rows_of(chunks), Source.REAL) + of_source(rows_of(chunks), Source.RESAMPLED)
    images = split.images(np.array([row.source_row for row in real]))
    assert [row.image for row in real] == [image.tobytes() for image in images]
    assert [row.label for row in real] == split.labels[[row.source_row for row in real]].tolist()


async def test_transformed_rows_are_drawn_at_their_own_address(service) -> None:
    _, chunks = await service.pull()
    plan, rows = service.issuer.plans[b"plan"], of_source(rows_of(chunks), Source.TRANSFORMED)
    indices = np.array([row.index for row in rows], np.uint64)
    addresses = addressed(plan.spec.seed, indices)
    images = plan.spec.split.images(np.array([row.source_row for row in rows]))
    item = ManipulationItem(rows=images, table=draw(POLICY, addresses), seed=plan.spec.seed, indices=indices)
    assert [row.image for row in rows] == [image.tobytes() for image in memory_transform(item)]


async def test_a_synthesised_row_is_the_sample_its_provenance_names(service) -> None:
    _, chunks = await service.pull()
    for row in of_source(rows_of(chunks), Source.SYNTHESISED):
        item = RangeItem(
            seed=row.seed, start_index=row.address, count=1, labels=np.array([row.label], np.uint32), dtype=Dtype.UINT8
        )
        assert row.image == memory_sample(GENERATOR, item).tobytes()
        assert (row.seed, row.address, row.source_row) == (attempt_seed(7, 0), row.index, 2**64 - 1)


@pytest.mark.parametrize("shards", [3, 8, 150, 200], ids=str)
async def test_shards_are_the_whole(service, shards: int) -> None:
    _, whole = await service.pull()
    parts = [rows_of((await service.pull(shard=shard, shards=shards))[1]) for shard in range(shards)]
    assert [row for part in parts for row in part] == rows_of(whole)


@pytest.mark.parametrize("start", [1, 37, 149], ids=str)
async def test_a_stream_is_resumed_anywhere(service, start: int) -> None:
    _, whole = await service.pull(provenance=FULL)
    header, rest = await service.pull(provenance=FULL, start_index=start)
    assert rows_of(rest) == rows_of(whole)[start:]
    assert header.first_index == 0


async def test_the_end_of_a_shard_is_a_header_and_no_rows(service) -> None:
    header, chunks = await service.pull(shard=1, shards=3, start_index=100)
    assert (header.first_index, header.end_index, chunks) == (50, 100, [])


async def test_rows_beyond_the_requested_end_are_not_sent(service) -> None:
    _, whole = await service.pull(provenance=FULL)
    header, part = await service.pull(provenance=FULL, start_index=20, end_index=33)
    assert rows_of(part) == rows_of(whole)[20:33]
    assert (header.first_index, header.end_index) == (0, 150)


async def test_batch_sizes_change_no_row(service, monkeypatch) -> None:
    give_plan(service, min_confidence=0.0, counts={(0, 3): 3000, (1, 4): 2000})
    _, whole = await service.pull(b"other", provenance=FULL)
    monkeypatch.setattr("service.augmentation.rows._FIRST_ROWS", 7)
    monkeypatch.setattr("service.augmentation.rows._MOST_ROWS", 900)
    _, otherwise = await service.pull(b"other", provenance=FULL, start_index=13)
    assert rows_of(otherwise) == rows_of(whole)[13:]


async def test_provenance_may_be_left_out(service) -> None:
    _, chunks = await service.pull(provenance=NONE)
    assert not any(chunk.HasField("provenance") for chunk in chunks)
    assert sum(chunk.samples.count for chunk in chunks) == 150


async def test_full_provenance_reports_the_transforms(service) -> None:
    header, chunks = await service.pull(provenance=FULL)
    rows = rows_of(chunks)
    table = np.concatenate([np.array(chunk.provenance.transforms, np.float32) for chunk in chunks])
    table = table.reshape(150, len(COLUMNS))
    changed = [row.index for row in of_source(rows, Source.TRANSFORMED)]
    assert tuple(header.transform_columns) == COLUMNS
    np.testing.assert_array_equal(table[changed], draw_provenance(POLICY, addressed(7, np.array(changed, np.uint64))))
    assert np.isnan(np.delete(table, changed, axis=0)).all()


async def test_full_provenance_reports_confidences_and_copy_ratios(service) -> None:
    give_plan(service, copy_threshold=0.01)
    _, chunks = await service.pull(b"other", provenance=FULL)
    made = np.array([row.source == Source.SYNTHESISED for row in rows_of(chunks)])
    confidences = np.concatenate([np.array(chunk.provenance.confidences) for chunk in chunks])
    ratios = np.concatenate([np.array(chunk.provenance.copy_ratios) for chunk in chunks])
    np.testing.assert_allclose(confidences[made], 0.9, rtol=1e-6)
    assert ((ratios[made] > 0) & (ratios[made] < 2)).all()
    assert np.isnan(confidences[~made]).all()
    assert np.isnan(ratios[~made]).all()


async def test_a_slot_whose_samples_all_fail_is_rejected(service) -> None:
    rows = range(0, 40, 3)
    give_plan(service, counts={(1, 4): 40})
    service.pool.faults.bad_indices = frozenset(rows)
    del service.issuer.plans[b"plan"]
    _, chunks = await service.pull(b"other")
    assert {row.index for row in rows_of(chunks) if row.error} == set(rows)
    assert all(row.image == bytes(16) and row.attempts == 4 for row in rows_of(chunks) if row.error)


async def test_a_confidence_that_no_sample_reaches_rejects_every_synthesised_slot(service) -> None:
    give_plan(service, min_confidence=0.95)
    _, chunks = await service.pull(b"other")
    rejected = [row for row in rows_of(chunks) if row.error]
    assert Counter(row.source for row in rejected) == {Source.SYNTHESISED: 40}
    (error, *_) = chunks[0].samples.errors
    assert (error.status.code, b"REJECTED" in error.status.details[0].value) == (10, True)


async def test_a_copy_is_rejected_and_the_next_attempt_taken(service) -> None:
    """A threshold half of the samples pass: the others are made by later attempts, each by its own seed."""
    plan = give_plan(service, counts={(0, 4): 200}, attempts=64, copy_threshold=0.75)
    _, chunks = await service.pull(b"other", provenance=FULL)
    rows = rows_of(chunks)
    ratios = np.concatenate([np.array(chunk.provenance.copy_ratios) for chunk in chunks])
    attempts = np.array([row.attempts for row in rows])
    assert attempts.max() > 1
    assert all(row.seed == attempt_seed(plan.spec.seed, row.attempts) for row in rows if not row.error)
    assert (ratios[[not row.error for row in rows]] >= 0.75).all()
    one = RangeItem(seed=rows[0].seed, start_index=0, count=1, labels=np.zeros(1, np.uint32), dtype=Dtype.UINT8)
    assert rows[0].image == memory_sample(GENERATOR, one).tobytes()


async def test_poisson_weights_are_sent_with_the_rows(service) -> None:
    give_plan(service, counts={(0, 1): 40}, mode=RealMode.POISSON)
    _, chunks = await service.pull(b"other")
    weights = [weight for chunk in chunks for weight in chunk.weights]
    assert len(weights) == 40
    assert {0, 1} < set(weights)


async def test_rows_out_of_bag_are_those_the_bootstrap_did_not_draw(service) -> None:
    plan = give_plan(service, counts={(0, 1): 40, (1, 1): 20}, mode=RealMode.BOOTSTRAP)
    _, drawn = await service.pull(b"other")
    header, left = await service.pull(b"other", part=OUT_OF_BAG)
    bag, out = {row.source_row for row in rows_of(drawn)}, [row.source_row for row in rows_of(left)]
    assert header.rows == len(out) > 10
    assert sorted({*bag, *out}) == np.flatnonzero(plan.spec.split.labels < 2).tolist()
    assert not bag & set(out)
    assert rows_of(left)[0].image == plan.spec.split.images(np.array(out[:1])).tobytes()


async def test_rows_are_counted_by_source(service) -> None:
    give_plan(service, min_confidence=0.95)
    await service.pull(b"other")
    counted = {source: service.metric("fount_rows_total", source=source) for source in ("real", "transformed")}
    assert counted == {"real": 64, "transformed": 36}
    assert service.metric("fount_rejected_rows_total") == 40
    assert service.metric("fount_refused_samples_total") == 160
