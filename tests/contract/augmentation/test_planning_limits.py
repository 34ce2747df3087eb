"""Limits of planning: few streams, bounded memory, one calibration at a time, no model that no row needs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fount.readers import DatasetSource
from service.augmentation.copy_filter import Calibration
from service.caller import CallerLimits
from service.datasets import DatasetSettings
from service.domain import Operation
from service.errors import NotReady
from service.workers.memory import MemoryPool
from service.workers.memory_models import memory_model
from tests.contract.augmenting import (
    ADA,
    ALL_SOURCES,
    CLASSES,
    SHAPE,
    SYNTHESIS,
    Planning,
    augmenting_pool,
    planning_with,
    small_settings,
)

TRANSFORMED = "seed: 1 target { factor: 2 } mix { transformed: 1 }"
FILTERED = ALL_SOURCES.replace("copy_quantile: 0", "copy_quantile: 0.1")


def settings_with_duplicates(folder: Path) -> DatasetSettings:
    """A data set whose test rows are training rows."""
    file, labels = folder / "duplicates.npz", np.repeat(np.arange(3, dtype=np.uint8), (20, 10, 10))
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    np.savez(file, x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    return DatasetSettings(source=DatasetSource(name="duplicates", path=file, classes=CLASSES), classifier="reader")


def settings_with_leaks(folder: Path, name: str, changed: int) -> DatasetSettings:
    """A data set with two test rows, of twenty, that are training rows with one bit changed, or none."""
    file, labels = folder / f"{name}.npz", np.repeat(np.arange(3, dtype=np.uint8), (20, 10, 10))
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    test = np.random.default_rng(1).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    test[[3, 7]] = images[[6, 14]] ^ np.uint8(changed)
    np.savez(file, x_train=images, y_train=labels, x_test=test, y_test=labels[::2])
    return DatasetSettings(source=DatasetSource(name=name, path=file, classes=CLASSES), classifier="reader")


class SlowPool(MemoryPool):
    """Workers that take a moment, so that streams are open at the same time."""

    async def call(self, call, *, timeout_s: float):
        await asyncio.sleep(0.01)
        return await super().call(call, timeout_s=timeout_s)


@pytest.fixture
async def planning(tmp_path: Path) -> AsyncIterator[Planning]:
    pool = SlowPool(models=augmenting_pool().models)
    leaks = [settings_with_leaks(tmp_path, name, changed) for name, changed in (("leaked", 0), ("near", 1))]
    async with planning_with(pool, small_settings(tmp_path), settings_with_duplicates(tmp_path), *leaks) as planning:
        yield planning


# --- Verification -----------------------------------------------------------------------------------------------------


async def test_a_caller_with_one_stream_has_a_policy_verified(planning: Planning) -> None:
    caller = replace(ADA, limits=CallerLimits(max_streams=1))
    plan = await planning.plan(TRANSFORMED, caller, retry_overloaded=False)
    assert plan.agreement.rows == 64


@pytest.mark.slow
@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
async def test_agreement_is_the_same_however_many_rows_are_tried_at_once(
    planning: Planning, monkeypatch, rows_at_once: int
) -> None:
    transform, sizes = planning.inference.transform, []

    async def darken(target, model, images, table, **rest):
        sizes.append(len(images))
        made = await transform(target, model, images, table, **rest)
        made[table[:, 2] > 5.0, 0, 0, 0] = 2  # some rotated rows become a two, by their own addresses
        return made

    monkeypatch.setattr(planning.inference, "transform", darken)
    monkeypatch.setattr("service.augmentation.verification._BYTES_AT_ONCE", rows_at_once * 16)
    agreement = (await planning.plan(TRANSFORMED + " verification { min_agreement: 0 }")).agreement
    assert max(sizes) == rows_at_once
    assert (agreement.rows, agreement.before, round(agreement.after * 64)) == (64, 1.0, 45)
    assert round(agreement.transforms[0].after * 64) == 45


async def test_nothing_continues_when_verification_fails(planning: Planning, monkeypatch) -> None:
    started = []

    async def lose(target, model, images, table, **rest):
        started.append(len(images))
        raise NotReady("transforms has no worker")

    monkeypatch.setattr(planning.inference, "transform", lose)
    await planning.refusal(TRANSFORMED, NotReady)
    assert started == [64]


# --- The copy filter --------------------------------------------------------------------------------------------------


async def test_an_absent_threshold_is_explained(planning: Planning) -> None:
    plan = await planning.plan(f'dataset: "duplicates" {FILTERED}')
    message = next(each.message for each in plan.warnings if each.reason == "COPY_FILTER_OFF")
    assert "all held-out rows are training rows themselves" in message
    assert "remove rows that are in both splits" in message


async def test_leaked_rows_are_named_and_do_not_lower_the_threshold(planning: Planning) -> None:
    plan = await planning.plan(f'dataset: "leaked" {FILTERED}')
    message = next(each.message for each in plan.warnings if each.reason == "LEAKED_ROWS")
    assert "2 of 20 rows of test tried for the copy filter equal a training row" in message
    assert "rows 3, 7; remove them from test" in message
    assert plan.copy_threshold > 0.25


async def test_a_threshold_that_near_copies_set_is_warned_of(planning: Planning) -> None:
    plan = await planning.plan(f'dataset: "near" {FILTERED.replace("0.1", "0.05")}')
    message = next(each.message for each in plan.warnings if each.reason == "COPY_FILTER_WEAK")
    assert f"only below a ratio of {plan.copy_threshold:.2g}, since rows of test are as near" in message


async def test_calibrations_run_one_at_a_time_even_when_callers_leave(planning: Planning, monkeypatch) -> None:
    running, most, release = 0, [0], threading.Event()

    def calibrate(*_) -> Calibration:
        nonlocal running
        running += 1
        most.append(running)
        release.wait(5)
        running -= 1
        return Calibration(threshold=0.5, tried=1, leaked=np.empty(0, np.int64))

    monkeypatch.setattr("service.augmentation.planner.calibrate", calibrate)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(planning.plan(FILTERED), 0.1)
    assert (await asyncio.wait_for(planning.plan("seed: 1"), 5)).rows == 64  # without a filter it does not wait
    release.set()
    assert (await planning.plan(FILTERED)).copy_threshold == 0.5
    assert most == [0, 1, 1]  # the first and the last: those whose callers left while they waited never ran


# --- Tickets ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_needs_no_model_that_no_row_needs(planning: Planning) -> None:
    plan = await planning.plan(f"seed: 1 mix {{ synthesised: 1 transformed: 1 }} {SYNTHESIS}")
    assert list(plan.models) == []
    planning.pool.models = []
    opened = await planning.issuer.open(plan.ticket, ADA)
    assert (opened.layout.count, opened.models) == (64, [])


# --- Classes ----------------------------------------------------------------------------------------------------------


async def test_a_classifier_without_labels_is_refused(planning: Planning) -> None:
    unlabelled = memory_model("unlabelled", labels=(), dims=SHAPE, operations=frozenset({Operation.CLASSIFY}))
    planning.pool.models = [*planning.pool.models, unlabelled]
    named = SYNTHESIS.replace("copy_quantile", 'classifier { name: "unlabelled" } copy_quantile')
    error = await planning.refusal(f"target {{ factor: 2 }} mix {{ synthesised: 1 }} {named}")
    assert "synthesis.classifier: unlabelled does not know 'zero', 'one', 'two'; it knows no labels" in str(error)


async def test_many_classes_that_would_lose_rows_are_one_problem(tmp_path: Path) -> None:
    labels = np.repeat(np.array(list("abcdefghij")), 2)
    np.savez(tmp_path / "x.npz", images=np.zeros((20, *SHAPE), np.uint8), labels=labels)
    letters = DatasetSettings(source=DatasetSource(name="letters", path=tmp_path / "x.npz"))
    async with planning_with(augmenting_pool(), letters) as planning:
        error = await planning.refusal('dataset: "letters" target { factor: 0.5 }')
    assert str(error) == (
        "target.factor: class 'a' has 2 rows and would have 1, class 'b' has 2 rows and would have 1, class 'c' has 2 "
        "rows and would have 1, … 10 in all; set target.subsample to leave rows out, or a factor of at least 1"
    )
