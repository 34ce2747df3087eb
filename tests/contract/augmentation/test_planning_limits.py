"""Planning within its means: few streams, bounded memory, heavy work in turn, no model that nothing needs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fount.readers import DatasetSource
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.plan_store import FolderPlans, MemoryPlans
from service.augmentation.planner import Planner
from service.augmentation.tickets import TicketKeys
from service.caller import Caller, CallerLimits
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets, DatasetSettings
from service.domain import Operation
from service.errors import NotReady
from service.scheduler.inference import InferenceClient, RequestContext
from service.scheduler.scheduler import BatchingScheduler
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool
from service.workers.memory_models import memory_model
from tests.contract.augmentation.test_planning import ALL, SYNTHESIS, Office, wish
from tests.contract.augmenting import CLASSES, SHAPE, augmenting_gateway, augmenting_pool, small_settings

ADA = Caller(subject="ada", grants=frozenset({"*"}))
TRANSFORMED = "seed: 1 target { factor: 2 } mix { transformed: 1 }"
FILTERED = ALL.replace("copy_quantile: 0", "copy_quantile: 0.1")


def settings_with_twins(folder: Path) -> DatasetSettings:
    """A data set whose test rows are training rows."""
    file, labels = folder / "twins.npz", np.repeat(np.arange(3, dtype=np.uint8), (20, 10, 10))
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    np.savez(file, x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    return DatasetSettings(source=DatasetSource(name="twins", path=file, classes=CLASSES), classifier="judge")


class SlowPool(MemoryPool):
    """Workers that take a moment, so that streams are open at the same time."""

    async def call(self, call, *, timeout_s: float):
        await asyncio.sleep(0.01)
        return await super().call(call, timeout_s=timeout_s)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    pool = SlowPool(models=augmenting_pool().models)
    await pool.start()
    scheduler = BatchingScheduler(pool, GatewayConfig(), Metrics("test"))
    datasets = Datasets((small_settings(tmp_path), settings_with_twins(tmp_path)))
    catalog, inference = Catalog(pool), InferenceClient(scheduler)
    planner = Planner(
        datasets=datasets, catalog=catalog, inference=inference, copies=CopyFilters(),
        keys=TicketKeys(keys={"k": b"k" * 32}), plans=MemoryPlans(),
    )  # fmt: skip
    yield Office(planner, pool, datasets, catalog, inference)
    await scheduler.close()
    await pool.close()


# --- Verification -----------------------------------------------------------------------------------------------------


async def test_a_caller_with_one_stream_has_a_policy_verified(office: Office) -> None:
    caller = replace(ADA, limits=CallerLimits(max_streams=1))
    plan = await office.planner.plan(wish(TRANSFORMED), RequestContext(caller=caller, retry_overloaded=False))
    assert plan.agreement.rows == 64


@pytest.mark.slow
@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
async def test_agreement_is_the_same_however_many_rows_are_tried_at_once(
    office: Office, monkeypatch, rows_at_once: int
) -> None:
    transform, sizes = office.inference.transform, []

    async def darken(target, model, images, table, **rest):
        sizes.append(len(images))
        made = await transform(target, model, images, table, **rest)
        made[table[:, 2] > 5.0, 0, 0, 0] = 2  # some of what is turned becomes a two, by its own address
        return made

    monkeypatch.setattr(office.inference, "transform", darken)
    monkeypatch.setattr("service.augmentation.verification._BYTES_AT_ONCE", rows_at_once * 16)
    told = (await office.plan(TRANSFORMED + " verification { min_agreement: 0 }")).agreement
    assert max(sizes) == rows_at_once
    assert (told.rows, told.before, round(told.after * 64), round(told.transforms[0].after * 64)) == (64, 1.0, 45, 45)


async def test_nothing_goes_on_when_verification_fails(office: Office, monkeypatch) -> None:
    begun = []

    async def lose(target, model, images, table, **rest):
        begun.append(len(images))
        raise NotReady("transforms has no worker")

    monkeypatch.setattr(office.inference, "transform", lose)
    await office.refusal(TRANSFORMED, NotReady)
    assert begun == [64]


# --- The copy filter --------------------------------------------------------------------------------------------------


async def test_a_threshold_of_nothing_is_told_by_its_cause(office: Office) -> None:
    plan = await office.plan(f'dataset: "twins" {FILTERED}')
    message = next(each.message for each in plan.warnings if each.reason == "COPY_FILTER_OFF")
    assert "more than 10.00% of the held-out rows are training rows themselves" in message
    assert "take rows out that are in both splits" in message


async def test_calibrations_take_turns_even_when_callers_leave(office: Office, monkeypatch) -> None:
    running, most, leave = 0, [0], threading.Event()

    def calibrate(*_) -> float:
        nonlocal running
        running += 1
        most.append(running)
        leave.wait(5)
        running -= 1
        return 0.5

    monkeypatch.setattr("service.augmentation.build.calibrate", calibrate)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(office.plan(FILTERED), 0.1)
    assert (await asyncio.wait_for(office.plan("seed: 1"), 5)).rows == 64  # no filter of its own: it waits for none
    leave.set()
    assert (await office.plan(FILTERED)).copy_threshold == 0.5
    assert max(most) == 1


# --- Tickets ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_needs_no_model_that_no_row_needs(office: Office) -> None:
    plan = await office.plan(f"seed: 1 mix {{ synthesised: 1 transformed: 1 }} {SYNTHESIS}")
    assert list(plan.models) == []
    office.pool.models = []
    opened = await office.planner.open(plan.ticket, ADA)
    assert (opened.layout.count, opened.generator, opened.transformer) == (64, None, None)


# --- Lists ------------------------------------------------------------------------------------------------------------


async def test_plans_that_fill_more_than_a_message_are_listed_in_pages(tmp_path: Path) -> None:
    async with augmenting_gateway(tmp_path, plans=tmp_path / "plans") as running:
        stub = augmentation_pb2_grpc.AugmentationServiceStub(running.channel)
        plan, kept = (await stub.PlanDataset(wish("seed: 1"))).plan, FolderPlans(tmp_path / "plans")
        plan.ticket += bytes(60_000)
        for number in range(50):  # 3 MB
            plan.id = f"{number:024x}"
            kept.put("anonymous", plan)
        first = await stub.ListPlans(augmentation_pb2.ListPlansRequest(page_size=1000))
        assert 0 < len(first.plans) < 51
        second = await stub.ListPlans(augmentation_pb2.ListPlansRequest(page_token=first.next_page_token))
        assert len({each.id for each in (*first.plans, *second.plans)}) == len(first.plans) + len(second.plans)


# --- Classes ----------------------------------------------------------------------------------------------------------


async def test_a_classifier_without_labels_is_refused(office: Office) -> None:
    mute = memory_model("mute", labels=(), dims=SHAPE, operations=frozenset({Operation.CLASSIFY}))
    office.pool.models = [*office.pool.models, mute]
    named = SYNTHESIS.replace("copy_quantile", 'classifier { name: "mute" } copy_quantile')
    error = await office.refusal(f"target {{ factor: 2 }} mix {{ synthesised: 1 }} {named}")
    assert "synthesis.classifier: mute does not know 'zero', 'one', 'two'; it knows no labels" in str(error)
