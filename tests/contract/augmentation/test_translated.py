"""Translated and reconstructed rows: what they are made from and of, which are rejected, and how they are planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from fount.v1 import augmentation_pb2 as pb
from fount.v1 import augmentation_pb2_grpc, latent_pb2, latent_pb2_grpc, translation_pb2, translation_pb2_grpc
from service.augmentation.generation import attempt_seed
from service.augmentation.slots import Source
from service.domain import Operation
from tests.contract.augmenting import (
    DOUBLE,
    RECONSTRUCTED,
    TRANSLATED,
    Planning,
    augmenting_gateway,
    every_source,
    generating_pool,
    plan_request,
    planning_with,
    reconstruction,
    rows_of,
    small_settings,
    translation,
)

DRAWN = reconstruction("")
EVERY_SOURCE = every_source(translation(), DRAWN)
OPERATIONS = {"translate": frozenset({Operation.TRANSLATE}), "latents": frozenset({Operation.ENCODE, Operation.DECODE})}


@pytest.fixture
async def planning(tmp_path: Path) -> AsyncIterator[Planning]:
    async with planning_with(generating_pool(), small_settings(tmp_path)) as planning:
        yield planning


async def planned(running, text: str) -> pb.Plan:
    stub = augmentation_pb2_grpc.AugmentationServiceStub(running.channel)
    return (await stub.PlanDataset(plan_request(text), timeout=20)).plan


async def pulled(running, plan: pb.Plan, **fields):
    """The rows of a pull, and their chunks."""
    stub = augmentation_pb2_grpc.AugmentationServiceStub(running.channel)
    request = pb.PullDatasetRequest(ticket=plan.ticket, provenance=pb.PROVENANCE_LEVEL_FULL, **fields)
    chunks = [each.chunk async for each in stub.PullDataset(request, timeout=20)][1:]
    return rows_of(chunks), chunks


async def made(folder: Path, text: str, source: Source):
    """The rows of one source of a plan."""
    async with augmenting_gateway(folder, pool=generating_pool()) as running:
        rows, _ = await pulled(running, await planned(running, text))
    return [row for row in rows if row.source == source]


def source_image(folder: Path, row) -> bytes:
    with np.load(folder / "small.npz") as arrays:
        return arrays["x_train"][row.source_row].tobytes()


# --- Rows -------------------------------------------------------------------------------------------------------------


async def test_translated_rows_are_translated_with_their_own_class(tmp_path: Path) -> None:
    rows = await made(tmp_path, f"{TRANSLATED}{translation()}", Source.TRANSLATED)
    assert Counter(row.label for row in rows) == {0: 40, 1: 20, 2: 4}
    for row in rows:
        negative = [255 - value for value in source_image(tmp_path, row)]
        assert list(row.image) == [row.label, *negative[1:15], row.index % 256]


async def test_reconstructed_rows_are_decoded_from_the_mean(tmp_path: Path) -> None:
    rows = await made(tmp_path, f"{RECONSTRUCTED}{reconstruction()}", Source.RECONSTRUCTED)
    assert [row.image for row in rows] == [source_image(tmp_path, row)[:15] + b"\0" for row in rows]
    assert len(rows) == 64


async def test_every_row_of_the_data_set_is_used_once_before_any_is_used_again(tmp_path: Path) -> None:
    rows = await made(tmp_path, f"{TRANSLATED}{translation()}", Source.TRANSLATED)
    assert sorted(row.source_row for row in rows) == list(range(64))


async def test_a_translated_row_is_what_translate_gives_at_its_address(tmp_path: Path) -> None:
    async with augmenting_gateway(tmp_path, pool=generating_pool()) as running:
        rows, _ = await pulled(running, await planned(running, f"{TRANSLATED}{translation()}"))
        row = next(row for row in rows if row.source == Source.TRANSLATED)
        config = {
            "model": {"name": "repainter"},
            "seed": row.seed,
            "start_index": row.address,
            "label": {"id": row.label},
        }
        given = {"count": 1, "data": source_image(tmp_path, row)}
        requests = [translation_pb2.TranslateRequest(config=config), translation_pb2.TranslateRequest(rows=given)]
        stub = translation_pb2_grpc.TranslationServiceStub(running.channel)
        _, response = [each async for each in stub.Translate(iter(requests), timeout=20)]
    assert (row.seed, row.address) == (attempt_seed(5, 0), row.index)
    assert response.chunk.data == row.image


async def test_a_reconstructed_row_is_what_reconstruct_gives_at_its_address(tmp_path: Path) -> None:
    """Of latents that are drawn, and of a row that needed more than one attempt."""
    async with augmenting_gateway(tmp_path, pool=generating_pool()) as running:
        rows, _ = await pulled(running, await planned(running, f"{RECONSTRUCTED}{DRAWN}"))
        row = next(row for row in rows if row.source == Source.RECONSTRUCTED and row.attempts and not row.error)
        config = {
            "model": {"name": "copier"},
            "seed": row.seed,
            "start_index": row.address,
            "latents": "LATENTS_SAMPLED",
        }
        given = {"count": 1, "data": source_image(tmp_path, row)}
        requests = [latent_pb2.ReconstructRequest(config=config), latent_pb2.ReconstructRequest(rows=given)]
        stub = latent_pb2_grpc.LatentServiceStub(running.channel)
        _, response = [each async for each in stub.Reconstruct(iter(requests), timeout=20)]
    assert (row.seed, row.address) == (attempt_seed(5, row.attempts), row.index)
    assert response.chunk.data == row.image


async def test_rows_are_the_same_in_any_shards_and_ranges(tmp_path: Path, monkeypatch) -> None:
    async with augmenting_gateway(tmp_path, pool=generating_pool()) as running:
        plan = await planned(running, EVERY_SOURCE)
        whole, _ = await pulled(running, plan)
        monkeypatch.setattr("service.augmentation.rows._FIRST_ROWS", 7)
        parts = [(await pulled(running, plan, shard=shard, shards=5))[0] for shard in range(5)]
        rest, _ = await pulled(running, plan, start_index=101, end_index=222)
    assert [row for part in parts for row in part] == whole
    assert rest == whole[101:222]
    assert {row.source for row in whole} == set(Source)


async def test_a_translation_that_changes_the_label_is_rejected(tmp_path: Path) -> None:
    direction = translation('label { name: "zero" }')
    rows = await made(tmp_path, f"{TRANSLATED}{direction}", Source.TRANSLATED)
    assert {row.label for row in rows if not row.error} == {0}
    assert Counter(row.label for row in rows if row.error) == {1: 20, 2: 4}
    assert all((row.image, row.attempts) == (bytes(16), 1) for row in rows if row.error)
    assert "none of 1 samples" in next(row.error for row in rows if row.error)


async def test_attempts_are_drawn_with_their_own_seeds(tmp_path: Path) -> None:
    """Drawn latents keep the first pixel of class zero in half of the attempts, that of others hardly ever."""
    rows = await made(tmp_path, f"{RECONSTRUCTED}{DRAWN}", Source.RECONSTRUCTED)
    zeros = [row for row in rows if row.label == 0]
    assert sum(bool(row.error) for row in zeros) <= 2
    assert max(row.attempts for row in zeros) > 1
    assert all(row.seed == attempt_seed(5, row.attempts) for row in rows if not row.error)
    assert all(row.attempts == 8 for row in rows if row.error)


async def test_a_row_that_fails_is_rejected(tmp_path: Path) -> None:
    pool = generating_pool()
    async with augmenting_gateway(tmp_path, pool=pool) as running:
        plan = await planned(running, f"{TRANSLATED}{translation()}")
        first = next(row for row in (await pulled(running, plan))[0] if row.source == Source.TRANSLATED)
        pool.faults.bad_indices = frozenset({first.index})
        rows, _ = await pulled(running, plan)
    assert [row.index for row in rows if row.error] == [first.index]


async def test_the_copy_filter_is_for_synthesised_rows_alone(tmp_path: Path) -> None:
    """A reconstruction of the mean is nearly its source row, and is kept."""
    text = every_source(translation(), reconstruction())
    async with augmenting_gateway(tmp_path, pool=generating_pool()) as running:
        plan = await planned(running, text)
        rows, chunks = await pulled(running, plan)
    ratios = np.concatenate([np.array(chunk.provenance.copy_ratios) for chunk in chunks])
    confidences = np.concatenate([np.array(chunk.provenance.confidences) for chunk in chunks])
    sources = np.array([row.source for row in rows])
    assert plan.copy_threshold > 0
    assert not any(row.error for row in rows if row.source == Source.RECONSTRUCTED)
    assert set(sources[~np.isnan(ratios)]) == {Source.SYNTHESISED}
    assert set(sources[~np.isnan(confidences)]) == {Source.SYNTHESISED, Source.TRANSLATED, Source.RECONSTRUCTED}


async def test_rows_are_counted_by_source(tmp_path: Path) -> None:
    direction = translation('label { name: "zero" }')
    async with augmenting_gateway(tmp_path, pool=generating_pool()) as running:
        mix = "mix { translated: 1 reconstructed: 1 }"
        await pulled(running, await planned(running, f"{DOUBLE} {mix} {direction} {reconstruction()}"))
        metrics = running.gateway.metrics.registry
        counted = {
            name: metrics.get_sample_value("fount_rows_total", {"source": name})
            for name in ("translated", "reconstructed")
        }
        rejected = metrics.get_sample_value("fount_rejected_rows_total")
    assert (counted, rejected) == ({"translated": 20.0, "reconstructed": 32.0}, 12.0)
